"""Decode speed: nanoseconds per weight by path, fidelity and shape, compared with an int8 copy.

    python -m benchmarks.decode_speed

Whole blocks on one thread, group after group, outliers included, checksums compared and not, on
every path that works on this machine. Weights are of BERT's shape with the tails of a trained
encoder. The bytes are fresh each time, as at run time: every run takes the next of many blocks,
together larger than the caches. Decoded weights go to two working buffers in turn. A plain copy of
the same block's int8 weights to the same buffers, also fresh, is the ceiling; limits are ratios to
it, for the best path.

The copy and all ways to decode a fidelity take turns, so that a busy moment hits them alike; each
sample is taken after an untimed run on another block. The median counts; the least shows what the
machine can do undisturbed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice, product
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.base_model import Planting, Shape, tensors
from benchmarks.common import LIMITS, Column, Report, Table, about_machine, at_most, median, parser
from shard_tools.quantization.codebook import build_codebook, histogram
from shard_tools.quantization.encode import EncodedShard, Encoder
from shard_tools.quantization.grids import outlier_cut, quantize_matrix
from sti.backend.working_buffer import WorkingBuffer
from sti.codec.codebook import DEFAULT_LADDER, Codebook
from sti.codec.decoder import PORTABLE
from sti.codec.decoders import available_paths, make_decoder
from sti.codec.pieces import GroupDecoder, OperandRoom
from sti.model.decoded_size import decoded_bytes
from sti.model.manifest import COLUMNS, ROWS, BlockKind, Operand
from sti.storage.reader import aligned_buffer
from tests.support.groups import StoredGroup, stored_group

MOST_RATIO = {2: 0.9, 3: 1.3, 4: 1.6, 6: 2.6, 8: 3.0}
"""Times an int8 copy, by fidelity, outliers and checks included."""
SMALL_MAY = 1.5
"""Small shards may take so much longer."""
PORTABLE_NS = 1.2
"""A weight of 4 bits in NumPy alone."""
FRESH_BYTES = 48_000_000
"""Read before a block comes again."""
SLICES = 12


@dataclass(frozen=True, slots=True)
class Case:
    """Blocks of one kind: the width of the model and of a slice, how many operands lie side by side
    (one joins the slices), slices in a group, and how many times ``MOST_RATIO`` they may take, if
    anything is asked of them.
    """

    name: str
    hidden: int
    width: int
    side_by_side: int
    group: int
    limit: float | None

    @property
    def kind(self) -> BlockKind:
        """As a manifest says it."""
        into = Operand("in", (self.hidden, self.width), COLUMNS)
        out = Operand("out", (self.width, self.hidden), ROWS)
        operands = (*(into,) * self.side_by_side, out)
        return BlockKind(self.name, "", "tokens", operands, (), (), (), (self.group,))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Weights of each operand in one slice."""
        return tuple(prod(operand.shape) for operand in self.kind.operands)


CASES = (
    Case("BERT-base FFN", 768, 256, 1, 3, 1.0),
    Case("BERT-base attention", 768, 64, 3, 6, None),
    Case("MiniLM FFN", 384, 128, 1, 12, SMALL_MAY),
    Case("MiniLM attention", 384, 32, 3, 12, SMALL_MAY),
)


@dataclass(slots=True)
class Cell:
    """What is measured once a pass: ``run`` copies or decodes the next of many equal blocks."""

    case: Case
    bits: int | None
    path: str
    check: bool
    run: Callable[[], object]
    seconds: list[float] = field(default_factory=list)

    def figures(self) -> tuple[float, float]:
        """Median and least, in nanoseconds a weight."""
        scale = 1e9 / (SLICES * sum(self.case.sizes))
        return median(self.seconds) * scale, min(self.seconds) * scale


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


def stored(shards: Sequence[EncodedShard], planes: int) -> StoredGroup:
    """A group with its first planes and no others, as it is read at run time."""
    cut = [
        EncodedShard(dict(islice(shard.planes.items(), planes)), shard.outliers) for shard in shards
    ]
    return stored_group(cut, [planes] * len(cut))


def cells_of(
    case: Case, level: int, q: NDArray[np.int8], codebook: Codebook, cut: int
) -> Iterator[Cell]:
    """Cells of one case and fidelity: the copy; and each path, checked and not."""
    size, encoder = sum(case.sizes), Encoder(codebook, cut=cut)
    parts = q[: SLICES * size].reshape(SLICES, size)
    shards = [encoder.encode(part, case.sizes) for part in parts]
    firsts = range(0, SLICES, case.group)
    memory = [WorkingBuffer(decoded_bytes(case.kind, case.group)) for _ in range(2)]
    buffers = [found.operands(case.kind, case.group, np.dtype(np.int8)) for found in memory]
    ends = np.cumsum(case.sizes)[:-1]
    block = [np.ascontiguousarray(part) for part in np.split(parts, ends, axis=1)]
    copies = cycle(
        [[_fresh(operand) for operand in block] for _ in range(1 + FRESH_BYTES // parts.size)]
    )
    yield Cell(case, None, "copy", False, partial(_copy, copies, case, buffers))
    groups = [stored(shards[first : first + case.group], level + 1) for first in firsts]
    count = 1 + FRESH_BYTES // sum(group.data.size for group in groups)
    blocks = cycle([[(_fresh(data), *rest) for data, *rest in groups] for _ in range(count)])
    for path in available_paths():
        decoder = make_decoder(codebook, weights="s8", path=path)
        for check in (True, False):
            run = partial(_decode, decoder, blocks, buffers, check)
            yield Cell(case, codebook.ladder[level], path, check, run)


def _fresh(array: NDArray[Any]) -> NDArray[Any]:
    """A copy in pages of its own, as the ring buffer's are."""
    made = aligned_buffer(array.nbytes)[: array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(made, array)
    return made


def _copy(
    copies: Iterator[Sequence[NDArray[Any]]], case: Case, buffers: Sequence[Sequence[OperandRoom]]
) -> None:
    block = next(copies)
    for first, rooms in zip(range(0, SLICES, case.group), cycle(buffers), strict=False):
        for source, room in zip(block, rooms, strict=True):
            part = source[first : first + case.group]
            np.copyto(room.matrix, part.reshape(room.matrix.shape))


def _decode(
    decoder: GroupDecoder,
    blocks: Iterator[Sequence[Any]],
    buffers: Sequence[Sequence[OperandRoom]],
    check: bool,
) -> None:
    for group, rooms in zip(next(blocks), cycle(buffers), strict=False):
        assert decoder.decode(*group, rooms, check=check) is None


def measure(repeats: int, cases: Sequence[Case] = CASES) -> Report:
    """Measure these cases at all fidelities."""
    q, cut = made_weights(), outlier_cut()
    codebook = build_codebook(histogram(q), cut=cut)
    table, limits = _speed_table(), Table("Limits", LIMITS)
    for case, level in product(cases, range(len(codebook.ladder))):
        cells = list(cells_of(case, level, q, codebook, cut))
        for _ in range(repeats):
            for cell in cells:
                cell.run()  # so that no cell pays for what the one before left in the caches
                start = perf_counter()
                cell.run()
                cell.seconds.append(perf_counter() - start)
        ceiling, _ = cells[0].figures()
        for cell in cells[1:]:
            ns, least = cell.figures()
            ratio, checked = ns / ceiling, "yes" if cell.check else "no"
            table.rows.append((case.name, cell.bits, cell.path, checked, ns, least, ceiling, ratio))
            limits.rows.extend(_limits(cell, ratio))
    about = [*about_machine(), f"{repeats} passes; outliers {_share(q, cut):.2%} of the weights"]
    return Report("Decode speed", about, [table, limits], [_call_cost(codebook)])


def _limits(cell: Cell, ratio: float) -> Iterator[tuple[str | float | int | None, ...]]:
    """What is asked of a cell: of the best path, and of NumPy."""
    assert cell.bits is not None
    if cell.case.limit is None or not cell.check:
        return
    if cell.path == available_paths()[0]:
        name = f"{cell.case.name}, {cell.bits} bits, times a copy"
        yield at_most(name, ratio, MOST_RATIO[cell.bits] * cell.case.limit)
    if cell.path == PORTABLE and (cell.case, cell.bits) == (CASES[0], 4):
        yield at_most(f"{cell.case.name}, 4 bits, {PORTABLE}, ns", cell.figures()[0], PORTABLE_NS)


def _call_cost(codebook: Codebook) -> str:
    """What a call costs by itself, on the best path."""
    shard = Encoder(codebook, cut=outlier_cut()).encode(np.zeros(8, np.int8), (8,))
    decoder, group = make_decoder(codebook, weights="s8"), stored([shard], 5)
    rooms, samples = [OperandRoom(np.zeros((1, 8), np.int8), 1, 1, columns=False)], list[float]()
    for _ in range(2000):
        start = perf_counter()
        decoder.decode(*group, rooms)
        samples.append(perf_counter() - start)
    return f"a call costs by itself (a shard of 8 weights, {decoder.path}): " + (
        f"{median(samples) * 1e6:.1f} us"
    )


def _speed_table() -> Table:
    return Table(
        "Nanoseconds a weight",
        (
            *(Column("block"), Column("bits"), Column("path"), Column("checked")),
            *(Column("median", ".3f"), Column("least", ".3f")),
            *(Column("int8 copy (ceiling)", ".3f"), Column("ratio", ".2f")),
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
    assert tuple(MOST_RATIO) == DEFAULT_LADDER
    measure(options.repeats).print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
