"""Write ``tests/native/vectors.h``: golden vectors of the kernel, from the NumPy specification.

    python -m tests.tools.kernel_vectors            # write the file
    python -m tests.tools.kernel_vectors --check    # exit 1 where it would change

The C programs beside it need neither Python nor a library, so that they run on other processors and
under sanitizers. A vector is a group of shards of all fidelities and what it decodes to, or the
fault in a damaged one. The header is for little-endian machines, as its structures are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from sti.codec.codebook import DEFAULT_LADDER, Codebook
from sti.codec.decoder import NumpyDecoder
from sti.codec.native.kernel import FAULTS
from sti.codec.native.structures import code_of
from sti.codec.weights import WeightForm
from sti.codec.word_rows import portable_rows, row_bytes, row_checksum
from tests.support.codes import bell_codebook, wild_codebook
from tests.support.groups import Layout, RandomGroup, guarded, random_group

OUTPUT = Path(__file__).resolve().parents[1] / "native" / "vectors.h"
SIZES, SMALL = (1024 + 136, 8, 160), (40, 8, 16)
"""Of operands: whole and short records, for every width of vector; and of a damaged group."""
LAYOUTS = (Layout(1, 8, columns=True), Layout(1, 8), Layout(2, 4, columns=True))
ROW_COUNT, ROW_HIDDEN, ROW_GROUP = 3, 96, 32
DAMAGES = ("checksum", "size", "bounds", "outliers")


def books() -> list[tuple[Codebook, WeightForm]]:
    """Codebooks, and how weights are written: sums, tables, odd ladders."""
    return [
        (bell_codebook(), "s8"),
        (bell_codebook(), "u8"),
        (bell_codebook(), "s7"),
        (wild_codebook(DEFAULT_LADDER, seed=1), "s8"),
        (bell_codebook((2, 3, 5, 6, 8)), "s8"),
        (wild_codebook((3, 7), seed=2), "u8"),
        (bell_codebook((4, 5, 7)), "s8"),
        (wild_codebook(tuple(range(2, 9)), seed=3), "s8"),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.kernel_vectors")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    made = "\n".join(lines()) + "\n"
    if not parser.parse_args(arguments).check:
        OUTPUT.write_text(made, encoding="utf-8")
        return 0
    return int(OUTPUT.read_text(encoding="utf-8") != made)


def lines() -> Iterator[str]:
    """The lines of the header."""
    yield "/* Made by tests/tools/kernel_vectors.py from the NumPy specification. */"
    yield '#include "sti_codec.h"'
    yield "#define GOLDEN static const __attribute__((unused))"
    yield "struct vector {"
    yield "    uint32_t code, operand_count, shard_count, row, piece, what, decoded;"
    yield "    uint64_t data_bytes;"
    yield "    struct sti_operand operands[4];"
    yield "    const uint8_t *data;"
    yield "    const struct sti_shard *shards;"
    yield "};"
    yield "/* To be copied to a struct sti_code. */"
    yield "GOLDEN uint8_t CODES[][sizeof(struct sti_code)] = {"
    for book, weights in books():
        yield f"    {{{','.join(map(str, bytes(code_of(book, weights=weights, features=0))))}}},"
    yield "};"
    vectors = []
    for number, (book, weights) in enumerate(books()):
        decoder = NumpyDecoder(book, weights=weights)
        for damage in (None, *(DAMAGES if number == 0 else ())):
            planes = (2, 3) if damage else range(1, len(book.ladder) + 1)
            sizes = SMALL if damage else SIZES
            group = random_group(book.ladder, sizes, planes, seed=number)
            name = f"{number}_{damage or 'fine'}"
            yield from _group(name, group, damage)
            vectors.append(_vector(name, number, decoder, group, damage))
    yield "GOLDEN struct vector VECTORS[] = {"
    yield from vectors
    yield "};"
    yield from _rows()


def _stored(group: RandomGroup, damage: str | None) -> tuple[Any, Any, Any]:
    """The bytes of a group in one part, the second shard's second plane or its list damaged."""
    data, starts, shards = group.stored()
    data = data.copy()
    for shard, start in zip(shards, starts, strict=True):
        shard["pieces"]["start"] += start
        shard["pieces"]["part"] = 0
    piece = shards["pieces"][1, 0 if damage == "outliers" else 2]
    match damage:
        case "checksum":
            data[int(piece["start"]) + 5] ^= 16
        case "size":
            piece["length"] -= 1
            begin = int(piece["start"])
            piece["checksum"] = crc32(data[begin : begin + int(piece["length"])])
        case "bounds":
            piece["start"] = data.size
        case "outliers":
            begin = int(piece["start"])
            data[begin] += 1
            piece["checksum"] = crc32(data[begin : begin + int(piece["length"])])
    return data, np.zeros(1, np.uint64), shards


def _group(name: str, group: RandomGroup, damage: str | None) -> Iterator[str]:
    data, _, shards = _stored(group, damage)
    yield from _bytes(f"DATA_{name}", data.tobytes())
    yield f"GOLDEN struct sti_shard SHARDS_{name}[] = {{"
    for shard in shards:
        pieces = ", ".join(
            "{" + ", ".join(f"{int(value)}u" for value in piece) + "}"
            for piece in shard["pieces"].tolist()
        )
        yield f"    {{{shard['row']}, {shard['planes']}, {{{pieces}}}}},"
    yield "};"


def _vector(name: str, code: int, decoder: Any, group: RandomGroup, damage: str | None) -> str:
    data, starts, shards = _stored(group, damage)
    memory, operands = guarded(group.sizes, len(shards), decoder.dtype, layouts=LAYOUTS)
    fault = decoder.decode(data, starts, shards, operands)
    row, piece, what = fault or (0, 0, "")
    numbers = {name: number for number, name in FAULTS.items()}
    decoded = crc32(b"".join(part.tobytes() for part in memory))
    rooms = ", ".join(
        f"{{0, {room.slices}, {room.parts}, {room.shape[0]}, {room.shape[1]}, {room.columns:d}, 0}}"
        for room in operands
    )
    return (
        f"    {{{code}, {len(operands)}, {len(shards)}, {row}, {piece}, {numbers.get(what, 0)},"
        f" {decoded}u, {data.size}, {{{rooms}}}, DATA_{name}, SHARDS_{name}}},"
    )


def _rows() -> Iterator[str]:
    rng = np.random.default_rng(9)
    length = row_bytes(ROW_HIDDEN, ROW_GROUP)
    raw = rng.integers(0, 256, (ROW_COUNT, length)).astype(np.uint8)
    scales = np.array(
        [[0x2E66, 0x0001, 0x83FF], [0x7BFF, 0x8400, 0x0000], [0xAE66, 0x3C00, 0x0400]]
    )
    raw[:, ROW_HIDDEN // 2 : -4] = scales.astype("<u2").view(np.uint8)
    ids = np.array([0, 70_000, 3], dtype=np.int64)
    for number, row in zip(ids.tolist(), raw, strict=True):
        row[-4:] = np.frombuffer(row_checksum(number, row[:-4]).to_bytes(4, "little"), np.uint8)
    out = np.empty((ROW_COUNT, ROW_HIDDEN), dtype=np.float32)
    assert portable_rows(raw, ids, ROW_GROUP, out) is None
    yield f"enum {{ ROW_COUNT = {ROW_COUNT}, ROW_HIDDEN = {ROW_HIDDEN}, ROW_GROUP = {ROW_GROUP} }};"
    yield f"enum {{ ROW_BYTES = {length} }};"
    yield f"#define ROW_DECODED {crc32(out)}u"
    yield f"GOLDEN int64_t ROW_IDS[] = {{{', '.join(map(str, ids.tolist()))}}};"
    yield from _bytes("ROWS", raw.tobytes())


def _bytes(name: str, data: bytes) -> Iterator[str]:
    yield f"GOLDEN uint8_t {name}[] = {{"
    for start in range(0, len(data), 24):
        yield "    " + ",".join(map(str, data[start : start + 24])) + ","
    yield "};"


if __name__ == "__main__":
    sys.exit(main())
