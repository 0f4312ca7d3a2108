"""Engines of tiny packs on a made-up machine, within a budget of memory."""

from __future__ import annotations

from typing import Any

import sti
from tests.support.checkpoints import Task
from tests.support.packs import PROFILE, tiny_pack


def opened(memory: int | str | None, *, task: Task = "embedding", **options: Any) -> sti.Engine:
    """An engine of one thread that tells nobody anything, unless the options say otherwise.

    Args:
        memory: its budget; a number is of bytes.
    """
    asked = f"{memory}B" if isinstance(memory, int) else memory
    return sti.Engine.open(
        tiny_pack(task),
        **{"threads": 1, "profile": PROFILE, "memory": asked, "notify": str, **options},
    )
