"""The STI paper's scheme, a system under test: ``python -m benchmarks.paper.system``.

The spec's file is a directory by `paper.model`. One thread reads, layer after layer, each layer's
shards at the plan's bits, past the page cache; the caller's thread decompresses a layer just before
its use into the one layer of float32 that there is, and computes it. Two layers may be read ahead.
Shards of leading layers stay in memory, compressed, from the first run on.

Options of the spec:

    bits        the whole model at one fidelity
    latency     seconds; instead of ``bits``: what the paper's planner makes of it
    preload     bytes that may stay in memory between runs; 0
    importance  for the planner: of each layer's slices; left out, earlier ones come first
    layers      for the planner: so many at least, where a model was not trained for fewer; 1
    words       ``read``: read the rows of the word embeddings that a run needs, hold none
    spinning    whether compute threads wait actively; false, so that the reader has a core

The machine is measured for the planner before the clock starts, as the paper does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.paper.format import SHARDS, Index, Shard
from benchmarks.paper.layer import Layers, padded
from benchmarks.paper.plan import Plan, plan, uniform
from benchmarks.paper.profile import measure
from sti.arrays import ByteArray, Float32Array
from sti.benchmark.system_process import Opened, Opener, Spec, serve
from sti.pipeline.workers import Channel, Stopped, Worker
from sti.storage.byte_ranges import ByteRange, coalesce, cover
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer

_AHEAD = 2

_Layer = tuple[ByteArray | None, list[ByteArray]]
"""The memory that a layer was read into, if any was, and the bytes of its shards."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read for a layer, and where its shards are in the memory it is read into."""

    ranges: tuple[ByteRange, ...]
    """Of the file, whole sectors; one behind the other in memory."""
    places: tuple[int, ...]
    """Of the shards that are read."""

    @property
    def length(self) -> int:
        """Bytes of memory."""
        return sum(item.length for item in self.ranges)


def reading(shards: Sequence[Shard]) -> Reading:
    """How to read a layer's shards with few requests."""
    ranges = [cover(item) for item in coalesce(ByteRange(s.offset, s.length) for s in shards)]
    places = []
    for shard in shards:
        start = 0
        for item in ranges:
            if item.offset <= shard.offset < item.end:
                places.append(start + shard.offset - item.offset)
            start += item.length
    return Reading(tuple(ranges), tuple(places))


class Streamed:
    """A model that is streamed at every run. Not thread-safe.

    Args:
        directory: what `paper.model` wrote.
        index: of the directory.
        planned: what to run.
        layers: the batch to run it on; closed with this.
    """

    def __init__(self, directory: Path, index: Index, planned: Plan, layers: Layers) -> None:
        self._plan, self._layers = planned, layers
        self._shards = planned.shards(index)
        flat = [shard for row in self._shards for shard in row]
        self._kept = _cut(flat[: planned.kept])
        self._is_kept = False
        self._readings = [reading(row) for row in self._shards]
        self._later = [reading(row[self._count(line) :]) for line, row in enumerate(self._shards)]
        size = max(item.length for item in self._readings)
        self._slots = [aligned_buffer(size) for _ in range(_AHEAD)]
        self._reader = FileReader(directory / SHARDS)
        self._worker = Worker("paper.read")

    @property
    def kept_bytes(self) -> int:
        """Bytes of shards that stay in memory."""
        return sum(shard.size for shard in self._kept)

    def _count(self, line: int) -> int:
        """Shards of a planned layer that stay in memory."""
        width = len(self._shards[line])
        return min(max(0, self._plan.kept - line * width), width)

    def run(self) -> Float32Array:
        """As ``Opened.run``."""
        free: Channel[ByteArray] = Channel()
        ready: Channel[_Layer] = Channel()
        for memory in self._slots:
            free.put(memory)
        done = self._worker.submit(lambda: self._read(free, ready))
        try:
            self._layers.embed()
            for layer, bits, row in zip(
                self._plan.layers, self._plan.bits, self._shards, strict=True
            ):
                slot, data = ready.get()
                self._layers.decompress(layer, bits, [shard.outliers for shard in row], data)
                if slot is not None:
                    free.put(slot)
                self._layers.compute(layer)
            answer = self._layers.pool()
        finally:
            free.fail(Stopped())
            done.wait()
        self._is_kept = True
        return answer

    def _read(self, free: Channel[ByteArray], ready: Channel[_Layer]) -> None:
        """The reading thread's part of a run: layer after layer into memory that is free."""
        try:
            for line, item in enumerate(self._later if self._is_kept else self._readings):
                slot = free.get() if item.ranges else None
                ready.put((slot, self._read_layer(line, slot, item)))
        except Stopped:
            pass
        except BaseException as error:
            ready.fail(error)

    def _read_layer(self, line: int, slot: ByteArray | None, item: Reading) -> list[ByteArray]:
        """Read one layer; returns the bytes of its shards."""
        row, found = self._shards[line], []
        if slot is not None:
            found = self._read_shards(slot, item, row[-len(item.places) :])
        count, before = self._count(line), line * len(row)
        held = self._kept[before : before + count]
        if self._is_kept:
            return [*held, *found]
        for target, source in zip(held, found, strict=False):
            np.copyto(target, source)
        return found

    def _read_shards(self, slot: ByteArray, item: Reading, row: Sequence[Shard]) -> list[ByteArray]:
        """Read the shards of ``row``, which ``item`` is of, into a slot."""
        start = 0
        for span in item.ranges:
            self._reader.read(span, slot[start : start + span.length])
            start += span.length
        return [
            slot[place : place + shard.length]
            for place, shard in zip(item.places, row, strict=True)
        ]

    def settle(self) -> None:
        """Nothing to wait for: what stays was filled by the run."""

    def close(self) -> None:
        """End the thread, close the files."""
        self._worker.close()
        self._reader.close()
        self._layers.close()


def _cut(shards: Sequence[Shard]) -> list[ByteArray]:
    """Memory for shards, end to end."""
    whole = np.empty(sum(shard.length for shard in shards), dtype=np.uint8)
    ends = np.cumsum([shard.length for shard in shards], dtype=np.int64)
    return [
        whole[end - shard.length : end] for shard, end in zip(shards, ends.tolist(), strict=True)
    ]


def prepare(spec: Spec) -> Opener:
    """Token ids are padded, and the plan is made, beforehand.

    Raises:
        ValueError: the directory or an option is not what it should be; says what to do.
    """
    directory, options = Path(spec.file), spec.options
    index = Index.load(directory)
    ids, mask = padded(spec.ids)
    preload = int(options.get("preload", 0))

    def layers() -> Layers:
        return Layers(
            directory,
            index.sizes,
            ids,
            mask,
            threads=spec.threads,
            spinning=bool(options.get("spinning")),
            words_resident=options.get("words") != "read",
        )

    if ("bits" in options) == ("latency" in options):
        raise ValueError("options of the spec: give one of `bits` and `latency`")
    if "bits" in options:
        planned = uniform(index, int(options["bits"]), preload)
    else:
        with closing(layers()) as measured:
            profile = measure(directory, index, measured)
        planned = plan(
            index,
            profile,
            latency=float(options["latency"]),
            preload=preload,
            least_layers=int(options.get("layers", 1)),
            importance=options.get("importance"),
        )

    def opener() -> Opened:
        return Streamed(directory, index, planned, layers())

    return opener


if __name__ == "__main__":
    sys.exit(serve(prepare))
