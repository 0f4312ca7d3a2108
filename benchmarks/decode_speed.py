"""Decode speed: nanoseconds per weight by fidelity and shard, compared with a plain int8 copy.

    python -m benchmarks.decode_speed

Whole decodes on one thread, outliers included, of shards cut from weights of BERT's shape with the
tails of a trained encoder, in two ways:

- ``one``: a shard by itself, in warm caches;
- ``block``: twelve, cut into the operands of a block, as many in one go as at run time. The limits
  are for these.

Two threads with a block each show whether they hinder one another. A plain copy of the same weights
is the ceiling of each. Every sample is taken right after the same call untimed, and all cells take
turns pass after pass, so that a busy moment hits them alike. The median counts; the least shows
what the machine can do undisturbed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Thread
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.base_model import Planting, Shape, tensors
from benchmarks.common import LIMITS, Column, Report, Table, about_machine, at_most, median, parser
from shard_tools.quantization.codebook import build_codebook, histogram
from shard_tools.quantization.encode import Encoder
from shard_tools.quantization.grids import outlier_cut, quantize_matrix
from sti.backend.onnxruntime.decoder import ShardDecoder
from sti.backend.working_buffer import OutlierRoom, WorkingBuffer
from sti.codec.codebook import DEFAULT_LADDER, Codebook
from sti.codec.decoder import Decoder
from sti.planning.block_jobs import GROUP_WEIGHTS

MOST_NS = {2: 0.15, 3: 0.25, 4: 0.3, 6: 0.6, 8: 0.5}
_TINY = 8
_SLICES = 12
_ONE, _BLOCK, _TWO = "one", "block", "two threads"
_LIMITED = "BERT-base FFN"
_OPERANDS = {"FFN": 2, "attention": 4}
"""Into which the shards of a block are cut: up and down; q, k, v and o."""
SHARDS = {
    _LIMITED: 393_216,
    "BERT-base attention": 196_608,
    "MiniLM FFN": 98_304,
    "MiniLM attention": 49_152,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What is measured once a pass: ``run`` decodes, or copies where ``bits`` is None."""

    shard: str
    bits: int | None
    way: str
    weights: int
    run: Callable[[], object]


def made_weights() -> NDArray[np.int8]:
    """One layer's weights on their grids, end to end."""
    shape = Shape(layers=1, hidden=768, heads=12, inner=3072, vocabulary=400, positions=64)
    found = tensors(shape, Planting(), np.random.default_rng(0))
    matrices = [
        np.ascontiguousarray(tensor.T)
        for name, tensor in found.items()
        if tensor.ndim == 2 and name.startswith("encoder.")
    ]
    return np.concatenate([quantize_matrix(matrix).q.reshape(-1) for matrix in matrices])


def cells_of(name: str, size: int, q: NDArray[np.int8], codebook: Codebook, cut: int) -> list[Cell]:
    """Cells of one size of shard: copies, and each fidelity in each way."""
    encoder, decoder = Encoder(codebook, cut=cut), Decoder(codebook)
    parts = q[: _SLICES * size].reshape(_SLICES, size)
    shards = [encoder.encode(part) for part in parts]
    operands = _OPERANDS[name.rsplit(maxsplit=1)[-1]] if size > _TINY else 1

    most = max(1, GROUP_WEIGHTS // size)

    def a_thread() -> Callable[[int, int], None]:
        """What decodes the first shards of a block at a level, with memory of its own."""
        out = WorkingBuffer([(size // operands,)] * operands, _SLICES, np.int8)
        fast, room = ShardDecoder(decoder), OutlierRoom()

        def decode(level: int, count: int) -> None:
            for first in range(0, count, most):
                chosen = shards[first : min(first + most, count)]
                planes = [list(shard.planes.values())[: level + 1] for shard in chosen]
                fast.look_up(planes, first, out)
            records = [shard.outliers for shard in shards[:count]]
            out.put_outliers(range(count), records, None, room)

        return decode

    decode, other = a_thread(), a_thread()

    def two_threads(level: int) -> None:
        threads = [Thread(target=work, args=(level, _SLICES)) for work in (decode, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    out = np.empty((_SLICES, size), dtype=np.int8)
    cells = [
        Cell(name, None, _ONE, size, partial(np.copyto, out[0], parts[0])),
        Cell(name, None, _BLOCK, out.size, partial(np.copyto, out, parts)),
        Cell(name, None, _TWO, out.size, partial(np.copyto, out, parts)),
    ]
    for level, bits in enumerate(codebook.ladder):
        cells.append(Cell(name, bits, _ONE, size, partial(decode, level, 1)))
        cells.append(Cell(name, bits, _BLOCK, out.size, partial(decode, level, _SLICES)))
        cells.append(Cell(name, bits, _TWO, 2 * out.size, partial(two_threads, level)))
    return cells


def timed(cells: Sequence[Cell], repeats: int) -> list[list[float]]:
    """Seconds of each cell in each pass."""
    samples: list[list[float]] = [[] for _ in cells]
    for _ in range(repeats):
        for cell, taken in zip(cells, samples, strict=True):
            cell.run()
            start = perf_counter()
            cell.run()
            taken.append(perf_counter() - start)
    return samples


def measure(repeats: int) -> Report:
    """Measure all shards at all fidelities."""
    q, cut = made_weights(), outlier_cut()
    codebook = build_codebook(histogram(q), cut=cut)
    sizes = {**SHARDS, "tiny": _TINY}
    cells = [
        cell for name, size in sizes.items() for cell in cells_of(name, size, q, codebook, cut)
    ]
    table, limits = _speed_table(), Table("Limits", LIMITS)
    copies: dict[tuple[str, str], float] = {}
    calls: list[str] = []
    for cell, taken in zip(cells, timed(cells, repeats), strict=True):
        ns, least = (value * 1e9 / cell.weights for value in (median(taken), min(taken)))
        if cell.bits is None:
            copies[cell.shard, cell.way] = ns
        elif cell.shard == "tiny":
            if cell.way == _ONE:
                calls.append(f"{median(taken) * 1e6:.1f} us at {cell.bits} bits")
        else:
            ceiling = copies[cell.shard, cell.way]
            row = (cell.shard, cell.bits, cell.way, ns, least, ceiling)
            table.rows.append((*row, MOST_NS[cell.bits]))
            if cell.shard == _LIMITED and cell.way == _BLOCK:
                name = f"{cell.shard}, {cell.bits} bits, ns a weight"
                limits.rows.append(at_most(name, ns, MOST_NS[cell.bits]))
    about = [*about_machine(), f"{repeats} passes; outliers {_share(q, cut):.2%} of the weights"]
    notes = [f"a call costs by itself (a shard of {_TINY} weights): {', '.join(calls)}"]
    return Report("Decode speed", about, [table, limits], notes)


def _speed_table() -> Table:
    return Table(
        "Nanoseconds a weight",
        (
            Column("shard"),
            Column("bits"),
            Column("way"),
            Column("median", ".3f"),
            Column("least", ".3f"),
            Column("int8 copy (ceiling)", ".3f"),
            Column("limit", ".2f"),
        ),
    )


def _share(q: NDArray[np.int8], cut: int) -> float:
    return float((np.abs(q.astype(np.int16)) > cut).mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    made = parser("decode_speed", __doc__, "--repeats 30")
    made.add_argument("--repeats", type=int, default=30, help="passes; default: 30")
    options = made.parse_args(arguments)
    if options.repeats < 1:
        made.error(f"--repeats: at least one pass is needed, got {options.repeats}")
    assert tuple(MOST_NS) == DEFAULT_LADDER
    measure(options.repeats).print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
