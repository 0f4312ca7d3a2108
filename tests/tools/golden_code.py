"""Write ``tests/golden/nested_code.json``: input, parameters and bytes of the nested code.

    python -m tests.tools.golden_code            # write the file
    python -m tests.tools.golden_code --check    # exit 1 where it would change

A change of this file is a change of the pack format: packs that exist decode differently. The
input is in the file itself, so nothing here has to be repeatable.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from shard_tools.quantization.codebook import build_codebook, histogram
from shard_tools.quantization.encode import EncodedShard, Encoder
from sti.codec.codebook import DEFAULT_LADDER, Codebook
from sti.codec.decoder import NumpyDecoder
from tests.support.groups import rooms_for, stored_group

OUTPUT = Path(__file__).resolve().parents[1] / "golden" / "nested_code.json"
SIZES = (1024 + 72, 256)
CUT = 54


def main(arguments: list[str] | None = None) -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.golden_code", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args(arguments).check:
        OUTPUT.write_text(json.dumps(made(*_input()), indent=1) + "\n", encoding="utf-8")
        return 0
    stored = json.loads(OUTPUT.read_text(encoding="utf-8"))
    q = np.frombuffer(bytes.fromhex(stored["q"]), dtype=np.int8)
    return int(made(q, np.array(stored["counts"], dtype=np.int64)) != stored)


def _input() -> tuple[Any, Any]:
    """Weights of a shard, and counts of the model it would come from."""
    rng = np.random.default_rng(0)
    model = np.clip(np.rint(rng.standard_t(12, size=1 << 20) * 17.0), -127, 127).astype(np.int8)
    return model[: sum(SIZES)], histogram(model)


def made(q: Any, counts: Any) -> dict[str, Any]:
    """What the file holds for these weights and counts."""
    codebook = build_codebook(counts, cut=CUT, ladder=DEFAULT_LADDER)
    shard = Encoder(codebook, cut=CUT).encode(q, SIZES)
    return {
        "cut": CUT,
        "ladder": list(DEFAULT_LADDER),
        "counts": counts.tolist(),
        "book": codebook.to_json(),
        "sizes": list(SIZES),
        "q": q.tobytes().hex(),
        "planes": {str(bits): plane.tobytes().hex() for bits, plane in shard.planes.items()},
        "outliers": shard.outliers.tobytes().hex(),
        "decoded": _decoded(codebook, shard),
    }


def _decoded(codebook: Codebook, shard: EncodedShard) -> dict[str, str]:
    decoder = NumpyDecoder(codebook)
    found = {}
    for level, bits in enumerate(codebook.ladder):
        group = stored_group([shard], [level + 1])
        rooms = rooms_for(SIZES, 1, np.int8)
        assert decoder.decode(*group, rooms) is None
        found[str(bits)] = b"".join(room.matrix.tobytes() for room in rooms).hex()
    return found


if __name__ == "__main__":
    sys.exit(main())
