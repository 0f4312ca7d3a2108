"""What is fuzzed: a reader of bytes from outside, and what it may do with them.

In: bytes. Out: a finding where the reader raises what is no error of STI's, takes too long or too
much memory, or breaks a promise of its own. Knows no reader.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sti.errors import StiError
from tests.support.paths import ROOT

MOST_S = 1.0
"""Of processor time for one input."""
MOST_BYTES = 100_000_000
"""By which the process may grow for one input."""
_OURS = tuple(str(ROOT / package / "") + "/" for package in ("sti", "shard_tools"))
Form = Literal["json", "bytes", "protobuf"]


class Broken(Exception):
    """A reader took an input and broke a promise about it."""


class Target(NamedTuple):
    """A reader that is fuzzed."""

    name: str
    read: Callable[[bytes], object]
    """Reads an input, and uses what came of it as a caller would."""
    seeds: Callable[[], Sequence[bytes]]
    """Sound inputs."""
    form: Form
    """How inputs are changed where bytes alone would hardly get anywhere."""
    words: tuple[str, ...] = ()
    """What sound inputs hold, to be put in elsewhere."""
    allowed: tuple[type[Exception], ...] = (StiError,)
    most_bytes: int = 1 << 16
    """Of an input."""


class Finding(NamedTuple):
    """What a reader did that it may not do."""

    target: str
    kind: str
    """One for all inputs with which the same goes wrong."""
    said: str
    seconds: float
    grown_bytes: int

    @property
    def name(self) -> str:
        """A file name for the input."""
        return f"{self.target}-{hashlib.sha256(self.kind.encode()).hexdigest()[:12]}"


def examine(target: Target, data: bytes) -> Finding | None:
    """Give a reader an input; what it may not do is a finding."""
    kind = said = ""
    before, begun = _peak_bytes(), time.thread_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.read(data)
        except target.allowed:
            pass
        except Exception as error:
            kind, said = _place(error), f"{type(error).__name__}: {error}"[:300]
    seconds, grown = time.thread_time() - begun, _peak_bytes() - before
    if not kind and seconds > MOST_S:
        kind = "takes long"
    if not kind and grown > MOST_BYTES:
        kind = "takes much memory"
    if not kind:
        return None
    return Finding(target.name, kind, said, seconds, grown)


def _place(error: BaseException) -> str:
    """Type and place of an error: the innermost lines of ours that it came through."""
    frames = [
        f"{Path(frame.filename).name}:{frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(_OURS)
    ]
    return " ".join((type(error).__name__, *(frames or ["harness"])[-2:]))


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def must(condition: bool, promise: str) -> None:
    """Tell a promise that was broken."""
    if not condition:
        raise Broken(promise)
