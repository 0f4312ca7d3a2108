"""What can be made to go wrong with reads, as values; and what that does to their bytes.

In: calls of readers, and the faults that wait for them. Out: which of them meet a call, and the
bytes as they then arrive. For tests, of this project and of apps that use it: nothing here is
imported by an engine. Knows nothing of files, packs or engines.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from sti.arrays import ByteArray
from sti.storage.byte_ranges import ByteRange

Kind = Literal["read", "rows"]
"""Of a call: ``Reader.read`` or ``Reader.read_rows``."""


class Call(NamedTuple):
    """One call of a reader."""

    kind: Kind
    place: ByteRange
    """What it is about; of rows, from the first one to the end of the last one."""


@dataclass(frozen=True, slots=True)
class Fails:
    """The system refuses the read."""

    errno: int
    """Such as ``errno.EIO``."""

    @property
    def error(self) -> OSError:
        """What the system says; a new one each time."""
        return OSError(self.errno, os.strerror(self.errno))


@dataclass(frozen=True, slots=True)
class Raises:
    """The read raises something else."""

    error: type[BaseException]
    """Such as ``KeyboardInterrupt``; raised with a text that says it was injected."""


@dataclass(frozen=True, slots=True)
class Stalls:
    """The read takes longer, and is then done as always."""

    seconds: float | None = None
    """None: until it is released."""


@dataclass(frozen=True, slots=True)
class EndsEarly:
    """A part of the bytes arrives. Readers say that the data ends there; the system's own calls
    return fewer bytes, and go on where they are called again.
    """

    share: float = 0.5
    """Of the call's bytes, rounded down."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """The file ends sooner."""

    size: int
    """Bytes that are left of it."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """The bytes come from another file."""

    data: bytes = field(repr=False)
    """All of that file; it ends where they end."""


@dataclass(frozen=True, slots=True)
class Flipped:
    """A byte has other bits."""

    offset: int
    """In the file."""
    mask: int = 1
    """The bits that change."""


@dataclass(frozen=True, slots=True)
class Zeroed:
    """A range has no bits set."""

    place: ByteRange
    """In the file."""


Effect = Fails | Raises | Stalls | EndsEarly | Truncated | Replaced | Flipped | Zeroed


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong, and at which calls: those that ``kind``, ``place`` and ``when`` let through
    are counted from 0, for each fault by itself.
    """

    effect: Effect
    at: int = 0
    """The first call that is hit."""
    times: int | None = 1
    """Calls from there on that are hit; None: all."""
    chance: float = 1.0
    """For each of those; drawn from the seed and the number of the call."""
    kind: Kind | None = None
    """Only calls of this kind."""
    place: ByteRange | None = None
    """Only calls that touch these bytes."""
    when: Callable[[Call], bool] | None = None
    """Only calls for which this is true; asked with a lock held."""

    def counts(self, call: Call) -> bool:
        """Whether a call is one of those that are counted."""
        if self.kind not in (None, call.kind):
            return False
        here, mine = call.place, self.place
        if mine is not None and not (mine.offset < here.end and here.offset < mine.end):
            return False
        return self.when is None or self.when(call)

    def hits(self, number: int) -> bool:
        """Whether the counted call of this number is hit, the chance left aside."""
        return number >= self.at and (self.times is None or number < self.at + self.times)


class Injected(NamedTuple):
    """A fault that met a call."""

    fault: Fault
    call: Call


class Injector:
    """Hands out faults to calls, in the order in which these come. Thread-safe.

    Args:
        faults: what waits for calls.
        seed: of the faults that have a chance.
    """

    def __init__(self, faults: Sequence[Fault] = (), *, seed: int = 0) -> None:
        self._seed, self._lock, self._process = seed, threading.Lock(), os.getpid()
        self._counts: list[int] = []
        """Of each fault the calls that counted so far."""
        self._faults: tuple[Fault, ...] = ()
        self._injected: list[Injected] = []
        self._calls = 0
        self._released = threading.Event()
        self.inject(*faults)

    def inject(self, *faults: Fault) -> None:
        """Have these faults instead, none if there are none; each counts calls from now on.

        Calls that stall already still do, until ``release``.
        """
        with self._lock:
            self._faults, self._counts = faults, [0] * len(faults)

    def release(self) -> None:
        """Let every call go on that stalls now; in a forked child none does."""
        if os.getpid() != self._process:
            return  # whoever had the lock may have stayed behind
        with self._lock:
            before, self._released = self._released, threading.Event()
        before.set()

    @property
    def injected(self) -> tuple[Injected, ...]:
        """What met which call so far, in order."""
        with self._lock:
            return tuple(self._injected)

    @property
    def calls(self) -> int:
        """Calls so far, hit or not."""
        with self._lock:
            return self._calls

    def meet(self, call: Call) -> tuple[Effect, ...]:
        """The effects on a call that begins now; stalls are over when this returns.

        Raises:
            What ``Raises`` names. (``Fails`` is left to who called: readers translate it.)
        """
        with self._lock:
            self._calls += 1
            released = self._released
            met = [fault for place, fault in enumerate(self._faults) if self._is_hit(place, call)]
            self._injected += [Injected(fault, call) for fault in met]
        effects = tuple(fault.effect for fault in met)
        for effect in effects:
            if isinstance(effect, Stalls):
                released.wait(effect.seconds)
        for effect in effects:
            if isinstance(effect, Raises):
                raise effect.error(f"injected into a call for {call.place}")
        return effects

    def _is_hit(self, place: int, call: Call) -> bool:
        fault = self._faults[place]
        if not fault.counts(call):
            return False
        number = self._counts[place]
        self._counts[place] += 1
        if not fault.hits(number):
            return False
        draw = random.Random(f"{self._seed} {place} {number}").random
        return fault.chance >= 1.0 or draw() < fault.chance


def refusal(effects: Sequence[Effect]) -> OSError | None:
    """What the system says to a call with these effects, if it refuses it."""
    return next((effect.error for effect in effects if isinstance(effect, Fails)), None)


def arriving(effects: Sequence[Effect], offset: int, data: ByteArray, *, short: bool) -> int:
    """Change the bytes of a read as its effects say.

    Args:
        offset: of the first one in the file.
        data: as they were read, uint8 ``[n]``; overwritten. Zeros where none arrive.
        short: whether ``EndsEarly`` is meant for this part of the call.

    Returns:
        How many there are, from the first one on.
    """
    size = len(data)
    for effect in effects:
        match effect:
            case Replaced(other):
                part = np.frombuffer(other[offset : offset + len(data)], dtype=np.uint8)
                data[: len(part)] = part
                size = min(size, len(part))
            case Truncated(end):
                size = min(size, max(0, end - offset))
            case EndsEarly(share) if short:
                size = min(size, int(len(data) * share))
            case Flipped(at, mask) if offset <= at < offset + len(data):
                data[at - offset] ^= mask
            case Zeroed(place):
                first, last = (max(0, end - offset) for end in (place.offset, place.end))
                data[first:last] = 0
    data[size:] = 0
    return size
