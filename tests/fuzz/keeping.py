"""Which inputs are worth keeping: the fewest, and the smallest, that reach all lines that any does.

In: a target, inputs. Out: some of them, the one that reaches most first. Knows no reader.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

from tests.fuzz.target import Target, examine

_OURS = ("/sti/", "/shard_tools/")
Step = tuple[str, int, int]
"""From one line of a file to the next one."""


def fewest(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """Inputs that reach together what all of them reach."""
    reached = {data: _steps(target, data) for data in sorted(dict.fromkeys(inputs), key=len)}
    found: list[bytes] = []
    left = set().union(*reached.values())
    while left:
        best = max(reached, key=lambda data: len(reached[data] & left) / (100 + len(data)))
        found.append(best)
        left -= reached.pop(best)
    return found


def _steps(target: Target, data: bytes) -> set[Step]:
    """All steps of our lines for an input."""
    steps: set[Step] = set()

    def called(frame: FrameType, event: str, value: object) -> Any:
        name, before = frame.f_code.co_filename, 0
        if not any(part in name for part in _OURS):
            return None

        def stepped(frame: FrameType, event: str, value: object) -> Any:
            nonlocal before
            if event == "line":
                steps.add((name, before, frame.f_lineno))
                before = frame.f_lineno
            return stepped

        return stepped

    sys.settrace(called)
    try:
        examine(target, data)
    finally:
        sys.settrace(None)
    return steps
