"""Write ``sti/backend/onnxruntime/decode/*.onnx``: the graphs that look up decoded weights.

    python -m tests.tools.decode_graphs            # write the files
    python -m tests.tools.decode_graphs --check    # exit 1 where one would change

A graph does one stage of a recipe (``sti.codec.tables``) for both halves of a shard, ``a`` and
``b``: bytes of components -> indices -> four weights an index, as one int32. Of ONNX Runtime's
operators only arithmetic is vectorized on bytes, so bits are moved by arithmetic: the high half of
a byte is ``round((byte - 7.5) / 16)``, which is what ``QLinearAdd`` computes, and shifts are
products that wrap around. A graph is called after the sources of its index, low byte first;
``wide`` looks up eight weights of two bits at once.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto

from shard_tools.graphs.writer import FUSED, GraphWriter

OUTPUT = Path(__file__).resolve().parents[2] / "sti" / "backend" / "onnxruntime" / "decode"
ENTRIES = {"two": 256, "one": 16, "ones": 256}
"""Sources of a byte of an index, and how many values it takes."""

STAGES = ("two", "one", "ones", *("two_" + high for high in ENTRIES), "ones_one", "ones_ones")
"""All that recipes ask for: components of two bits come first, single ones by twos."""

_U8, _U16, _I32, _I64 = (
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.INT32,
    TensorProto.INT64,
)


def main(arguments: list[str] | None = None) -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.tools.decode_graphs", description=__doc__
    )
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if parser.parse_args(arguments).check:
        stored = {path.stem: path.read_bytes() for path in OUTPUT.glob("*.onnx")}
        return int(stored != made())
    OUTPUT.mkdir(exist_ok=True)
    for name, model in made().items():
        (OUTPUT / f"{name}.onnx").write_bytes(model)
    return 0


def made() -> dict[str, bytes]:
    """All graphs by name."""
    return {"wide": _wide(), **{name: _stage(*name.split("_")) for name in STAGES}}


def _wide() -> bytes:
    g = GraphWriter("wide")
    codes = g.input("codes", _U16, ("n",))
    table = g.input("table", _I64, (1 << 16,))
    index = g.node("Cast", codes, to=_I32)
    g.node("GatherElements", table, index, out="weights")
    return g.finish({"weights": (_I64, ("n",))})


def _stage(low: str, high: str | None = None) -> bytes:
    g = GraphWriter("_".join(filter(None, (low, high))))
    entries = ENTRIES[low] if high is None else 256 * ENTRIES[high]
    table = g.input("table", _I32, (entries,))
    lows = _halves(g, "low", low)
    highs = (None, None) if high is None else _halves(g, "high", high)
    for out, low_byte, high_byte in zip("ab", lows, highs, strict=True):
        index = low_byte
        if high_byte is not None:
            wide = g.node("Cast", high_byte, to=_U16)
            wide = g.node("Mul", wide, g.constant(np.uint16(256)))
            index = g.node("Add", wide, g.node("Cast", low_byte, to=_U16))
        g.node("GatherElements", table, g.node("Cast", index, to=_I32), out=out)
    return g.finish({"a": (_I32, ("n",)), "b": (_I32, ("n",))})


def _halves(g: GraphWriter, name: str, source: str) -> tuple[str, str]:
    """One byte of the index of each weight's quad in the first and in the second half."""
    if source == "two":
        first, second = (g.input(f"{name}.{half}", _U8, ("n",)) for half in (0, 1))
        return first, second
    first = g.input(f"{name}.0", _U8, ("n",))
    up = _high_half(g, first)
    sixteen = g.constant(np.uint8(16))
    if source == "one":
        return g.node("Sub", first, g.node("Mul", up, sixteen)), up
    second = g.input(f"{name}.1", _U8, ("n",))
    # first + 16 (second - up) is low(first) + 16 low(second), modulo 256.
    moved = g.node("Mul", g.node("Sub", second, up), sixteen)
    here = g.node("Add", first, moved)
    there = g.node("Add", up, g.node("Mul", _high_half(g, second), sixteen))
    return here, there


def _high_half(g: GraphWriter, x: str) -> str:
    """``x // 16`` of bytes."""
    scale, one = g.constant(np.float32(1 / 16)), g.constant(np.float32(1))
    zero, unit = g.constant(np.uint8(0)), g.constant(np.ones(1, dtype=np.uint8))
    shift = g.constant(np.float32(-7.5 / 16))
    return g.node("QLinearAdd", x, scale, zero, unit, shift, zero, one, zero, domain=FUSED)


if __name__ == "__main__":
    sys.exit(main())
