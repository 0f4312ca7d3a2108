"""The process that makes staircases for an engine whose memory is limited.

In: a job of ``sti.engine.staircases_apart``. Out: the staircases, and in the cache where that can
be.
"""

from __future__ import annotations

import base64
from typing import Any

from sti.device.process_answers import serve
from sti.engine.staircase_source import made
from sti.notices import Notify
from sti.pack.pack_reader import PackReader


def make(job: Any, _: Notify) -> dict[str, object]:
    """Make the staircases of the pack of a ``path``.

    Raises:
        PackError: the pack cannot be used.
    """
    with PackReader.open(job["path"]) as reader:
        raw = made(reader).to_bytes(reader.manifest)
    return {"staircases": base64.b64encode(raw).decode("ascii")}


if __name__ == "__main__":
    serve(make)
