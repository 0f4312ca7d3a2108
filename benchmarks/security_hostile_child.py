"""A process that opens packs it should not trust: ``python -m benchmarks.security_hostile_child``.

In, on standard input: JSON lines, each the path of a pack. Out: a line for each, of how opening it,
running it, with short texts and with long ones, and closing it ended, how long that took, and by
how much the process grew. It may end in any way: its parent counts that (``security_hostile``).
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import sti
from sti.device.profile import DeviceProfile

TEXTS = ("the dog runs under a red table", "cat")
"""Of two lengths, so that one is padded."""
LONG_TEXTS = (
    "the quick brown fox jumps over the lazy dog and then it sleeps. " * 16_000,
    "".join("ab" * 45 + f"{number:05d}\u0439 " for number in range(10_000)),
    "a" * 500_000,
)
"""A megabyte of usual words, one of long words that nobody knows, and one word of half as much."""
_PAGE = 1024


class Ended(NamedTuple):
    """How a case ended."""

    state: str
    """``refused``, ``answered``, ``not finite`` or ``untyped``."""
    said: str
    """The error, or the digest of the answer."""
    seconds: float
    grown_bytes: int
    """The most beyond what the process had after its first line."""
    held_bytes: int
    """What of this is still there."""


class Child:
    """Answers cases."""

    def __init__(self, profile: DeviceProfile) -> None:
        self._profile = profile
        self._base = 0

    def warm(self, packs: list[str]) -> None:
        """Answer sound packs, and take what the process has then as its least."""
        for path in packs * 2:
            self.case(path)
        self._base = _status("VmRSS")

    def case(self, path: str) -> Ended:
        """Open, run and close one pack."""
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # the most starts anew
        start = perf_counter()
        state, said = self._end(path)
        seconds = perf_counter() - start
        grown, held = _status("VmHWM") - self._base, _status("VmRSS") - self._base
        return Ended(state, said, seconds, grown, held)

    def _end(self, path: str) -> tuple[str, str]:
        try:
            with sti.Engine.open(
                path, threads=1, profile=self._profile, history=False, notify=_quiet
            ) as engine:
                answered = _answered(engine.run(list(TEXTS)))
                for text in LONG_TEXTS:
                    engine.run([text])
                return answered
        except sti.StiError as error:
            return "refused", f"{type(error).__name__}: {error}"
        except Exception as error:
            return "untyped", f"{type(error).__name__}: {error}"


def _answered(result: Any) -> tuple[str, str]:
    arrays = [value for value in _arrays(result.answer) if value.dtype == np.float32]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    finite = all(np.isfinite(array).all() for array in arrays)
    json.dumps(result.answer.to_json(), allow_nan=False) if finite else None
    return "answered" if finite else "not finite", digest.hexdigest()[:16]


def _arrays(answer: Any) -> list[np.ndarray[Any, Any]]:
    for name in ("embeddings", "token_logits", "logits"):
        found = getattr(answer, name, None)
        if found is not None:
            return list(found) if isinstance(found, tuple) else [found]
    return []


def _quiet(line: str) -> None:
    """Notices are nobody's here."""


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * _PAGE
    return 0


def main() -> int:
    """Serve until standard input ends."""
    setting = json.loads(sys.stdin.readline())
    child = Child(DeviceProfile.from_json(setting["profile"], where="given"))
    child.warm(setting["packs"])
    _say({"ready": True})
    for line in sys.stdin:
        _say(child.case(json.loads(line))._asdict())
    return 0


def _say(reply: dict[str, Any]) -> None:
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    sys.exit(main())
