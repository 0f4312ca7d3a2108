"""``sti run --replay``: the runs of a trace again, bit for bit.

In: parsed arguments. Out: an engine for what was recorded, and its results.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sti.engine.replay import Recording
from sti.errors import InputError
from sti.pack.pack_reader import PackReader

if TYPE_CHECKING:
    from sti.engine.targets import TargetSpec

_DECIDED = ("latency", "memory", "preload", "fidelity", "plan", "target", "config")
"""Options that say what to run, which the trace does."""


def recording_of(args: argparse.Namespace) -> tuple[Recording, TargetSpec]:
    """The recording that ``--replay`` names, and the target to open its pack with.

    Raises:
        InputError: other options say what to run, or the file cannot be read.
        PlanError: it holds no recording, a damaged one, or one of another pack.
        PackError: the pack cannot be read.
    """
    given = [name for name in _DECIDED if getattr(args, name) is not None]
    if given:
        raise InputError(
            f"--replay and --{given[0]} exclude each other: the trace says what to run; leave one "
            "out"
        )
    recording = Recording.read(args.replay)
    with PackReader.open_whole(args.pack) as reader:
        recording.check_pack(reader.manifest, reader.pack_id)
    return recording, recording.target
