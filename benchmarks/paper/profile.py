"""Measuring a machine for the paper's planner: reading, decompressing and computing, one by one.

In: a model by `paper.model`, and a batch to compute. Out: a ``Profile``. Each figure is the median
of a few. Knows nothing of plans.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks.paper.format import SHARDS, Index, Shard
from benchmarks.paper.layer import Layers
from benchmarks.paper.plan import Profile
from sti.arrays import ByteArray
from sti.storage.byte_ranges import ByteRange, cover
from sti.storage.file_reader import FileReader
from sti.storage.reader import aligned_buffer

_REPEATS = 5


def measure(directory: Path, index: Index, layers: Layers) -> Profile:
    """Measure, in some tenths of a second for BERT-base.

    Args:
        directory: what `paper.model` wrote.
        index: of the directory.
        layers: the batch that answers are for; its weights are overwritten.
    """
    layers.embed()
    layers.compute(0)  # the first run of a graph takes longer
    with FileReader(directory / SHARDS) as reader:
        rows = {bits: index.shards[0][bits] for bits in index.bits}
        data = {bits: _read(reader, row) for bits, row in rows.items()}
        shard_s = {}
        computing = []
        for bits, row in rows.items():
            outliers = [shard.outliers for shard in row]
            job = partial(layers.decompress, 0, [bits] * len(row), outliers, data[bits])
            shard_s[bits] = _median(job) / len(row)
            # Behind a decompression, which leaves little else in the caches.
            computing.append(_seconds(partial(layers.compute, 0)))
        request_s, byte_s = _reading(reader, index)
    return Profile(
        request_s=request_s,
        byte_s=byte_s,
        layer_s=statistics.median(computing),
        shard_s=shard_s,
        around_s=_median(layers.embed) + _median(layers.pool),
    )


def _read(reader: FileReader, row: Sequence[Shard]) -> list[ByteArray]:
    """The bytes of a layer's shards at one fidelity."""
    span = _whole(row)
    held = aligned_buffer(span.length)
    reader.read(span, held)
    starts = [shard.offset - span.offset for shard in row]
    return [held[start : start + shard.length] for start, shard in zip(starts, row, strict=True)]


def _whole(row: Sequence[Shard]) -> ByteRange:
    """All shards of a layer at one fidelity, in whole sectors."""
    return cover(ByteRange(row[0].offset, row[-1].offset + row[-1].length - row[0].offset))


def _reading(reader: FileReader, index: Index) -> tuple[float, float]:
    """Seconds a request and a byte: the line through reads of two sizes, each layer's once."""
    short = [cover(ByteRange(row[index.bits[0]][0].offset, 1)) for row in index.shards]
    long = [_whole(row[index.bits[-2:][0]]) for row in index.shards]
    buffer = aligned_buffer(max(span.length for span in long))

    def seconds(spans: Sequence[ByteRange]) -> float:
        return statistics.median(_seconds(partial(reader.read, span, buffer)) for span in spans)

    less, more = seconds(short), seconds(long)
    extra = statistics.median(span.length for span in long) - short[0].length
    byte_s = max(0.0, more - less) / max(1.0, extra)
    return max(0.0, less - short[0].length * byte_s), byte_s


def _median(job: Callable[[], object]) -> float:
    return statistics.median(_seconds(job) for _ in range(_REPEATS))


def _seconds(job: Callable[[], object]) -> float:
    start = perf_counter()
    job()
    return perf_counter() - start
