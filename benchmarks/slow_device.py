"""Emulating slower devices: real work that ends no sooner than a slower processor's would.

In: a back end or a profile of this machine, and how many times slower the device is. Out: a back
end with the same answers, later; the profile of such a device. Work sleeps for what it would take
longer, so one machine can be several slow devices at once, as long as all of their real work fits
on its cores. (Caches that cooled down meanwhile make the work itself cost about a tenth more where
it is ten times slower.) Slower storage is ``sti.device.emulated_storage``'s; both go together in
``slow_options``. The tokenizer and what lies between steps are as fast as ever. Knows nothing of
networks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep, thread_time
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sti.arrays import ByteArray, Float32Array, Int64Array
from sti.backend.interface import Backend, SentenceState
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.pieces import Fault, GroupDecoder, OperandRoom
from sti.device.emulated_storage import SlowReader, with_storage
from sti.device.lane_profiles import RunProfile, StorageProfile
from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.device.profile import DeviceProfile
from sti.engine.options import EngineOptions
from sti.model.manifest import SliceGroup
from sti.planning.lane_threads import WHOLE, Share
from sti.planning.plan import EXACT
from sti.storage.file_reader import FileReader

T = TypeVar("T")

_MOST_LATE_S = 0.02
"""Of the time that sleeps took too long, what later ones make good at most."""


def slowed(backend: Backend, times: float) -> Backend:
    """A back end whose every computation and decoding takes ``times`` times as long.

    A call ends when ``times`` times the processor time of its thread have passed since it began, or
    when it is done; so waiting for a core that other emulated devices use does not count, unless
    it takes longer than that. ``backend`` computes on the thread that calls it (an ``OrtBackend``
    of one thread does), and is closed with this one.

    Args:
        backend: computes.
        times: at least 1.

    Raises:
        ValueError: it is less.
    """
    return _SlowBackend(backend, _Pace(_factor(times)))


def emulated(
    profile: DeviceProfile, *, times: float = 1.0, storage: StorageProfile | None = None
) -> DeviceProfile:
    """The profile of an emulated device.

    Threads disturb each other by what they really do, a ``times``-th of the time: that is what is
    left of the contention for processor and memory. A read that is disturbed still ends when the
    emulated storage lets it.

    Args:
        profile: of this machine.
        times: how many times slower it computes and decodes, at least 1.
        storage: of the device, where that is emulated too (``SlowReader``).

    Raises:
        ValueError: ``times`` is less.
    """
    factor = _factor(times)
    found = profile if storage is None else with_storage(profile, storage)
    return replace(
        found.slowed({DECODE: factor, COMPUTE: factor}),
        device=f"{profile.device}; emulated: {factor:g} times slower",
        runs={
            name: _less_contention(
                run, factor, found.storage.bytes_per_s / profile.storage.bytes_per_s
            )
            for name, run in profile.runs.items()
        },
    )


def slow_options(
    pack: Path,
    profile: DeviceProfile,
    *,
    times: float = 1.0,
    storage: StorageProfile | None = None,
    **options: Any,
) -> EngineOptions:
    """How an engine on an emulated device is opened.

    Args:
        pack: the file; opened where its storage is emulated, and closed with the engine.
        profile: of this machine, with the threads that the engine is to have.
        times, storage: as ``emulated``.
        options: others of ``EngineOptions``.
    """
    device = emulated(profile, times=times, storage=storage)
    return EngineOptions(
        threads=profile.threads,
        profile=device,
        storage=None if storage is None else SlowReader(FileReader(pack), storage),
        wrap_backend=lambda backend: slowed(backend, times),
        **options,
    )


def _factor(times: float) -> float:
    if not 1.0 <= times < np.inf:
        raise ValueError(f"a device is emulated that is at least 1 time slower; found {times}")
    return float(times)


def _less_contention(run: RunProfile, times: float, rate: float) -> RunProfile:
    """Args:
    rate: of storage, over its real one.
    """
    contention = dict(run.contention)
    for lane in (DECODE, COMPUTE):
        contention[lane] = 1.0 + (contention[lane] - 1.0) / times
    if rate < 1.0:
        contention[STORAGE] = max(1.0, contention[STORAGE] * rate)
    return replace(run, contention=contention)


class _Pace:
    """Lets calls of any threads take longer."""

    def __init__(self, times: float) -> None:
        self._times, self._threads = times, threading.local()

    def take(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, as late as it is due."""
        start, used = perf_counter(), thread_time()
        found = work()
        due = start + self._times * (thread_time() - used) - getattr(self._threads, "late", 0.0)
        left = due - perf_counter()
        if left > 0.0:
            sleep(left)
        # Sleep wakes up late, which must not count against the emulated device.
        self._threads.late = min(_MOST_LATE_S, max(0.0, perf_counter() - due))
        return found


class _SlowState:
    """A ``SentenceState`` of a slower device."""

    def __init__(self, inner: SentenceState, pace: _Pace) -> None:
        self._inner, self._pace = inner, pace

    def step(
        self,
        group: SliceGroup,
        width: int,
        *,
        variant: str = EXACT,
        buffer: int = 0,
        lane: int = 0,
        share: Share = WHOLE,
    ) -> None:
        self._pace.take(
            lambda: self._inner.step(
                group, width, variant=variant, buffer=buffer, lane=lane, share=share
            )
        )

    def connect(self, layer: int, kind: str) -> None:
        self._pace.take(lambda: self._inner.connect(layer, kind))

    def finish(self) -> Float32Array:
        return self._pace.take(self._inner.finish)

    def hidden(self) -> Float32Array:
        return self._inner.hidden()

    def set_hidden(self, values: Float32Array) -> None:
        self._inner.set_hidden(values)


class _SlowDecoder:
    """A ``GroupDecoder`` of a slower device."""

    def __init__(self, inner: GroupDecoder, pace: _Pace) -> None:
        self._inner, self._pace = inner, pace

    @property
    def path(self) -> str:
        return self._inner.path

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._inner.dtype

    def decode(
        self,
        data: ByteArray,
        starts: NDArray[np.uint64],
        shards: NDArray[Any],
        operands: Sequence[OperandRoom],
        *,
        check: bool = True,
    ) -> Fault | None:
        return self._pace.take(
            lambda: self._inner.decode(data, starts, shards, operands, check=check)
        )


class _SlowBackend:
    """A ``Backend`` of a slower device."""

    def __init__(self, inner: Backend, pace: _Pace) -> None:
        self._inner, self._pace = inner, pace

    @property
    def lanes(self) -> int:
        return self._inner.lanes

    @property
    def variants(self) -> Sequence[str]:
        return self._inner.variants

    def buffer(self, number: int) -> WorkingBuffer:
        return self._inner.buffer(number)

    def prepare(self, variants: Collection[str] = (EXACT,)) -> None:
        self._inner.prepare(variants)

    def decoder(self, variant: str) -> GroupDecoder:
        return _SlowDecoder(self._inner.decoder(variant), self._pace)

    def embedding_buffer(self, batch: int, tokens: int) -> Float32Array:
        return self._inner.embedding_buffer(batch, tokens)

    def start(
        self,
        embeddings: Float32Array,
        types: Int64Array,
        lengths: Sequence[int],
        *,
        place: int | None = None,
    ) -> SentenceState:
        state = self._pace.take(lambda: self._inner.start(embeddings, types, lengths, place=place))
        return _SlowState(state, self._pace)

    def resume(
        self, hidden: Float32Array, lengths: Sequence[int], *, place: int | None = None
    ) -> SentenceState:
        return _SlowState(self._inner.resume(hidden, lengths, place=place), self._pace)

    def release_states(self) -> None:
        self._inner.release_states()

    def close(self) -> None:
        self._inner.close()
