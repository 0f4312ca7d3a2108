"""The graphs of the first edition, which took the slices of an operand one by one."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from typing import Any

from tests.support.paths import ROOT

FIRST_GRAPHS: list[dict[str, Any]] = json.loads(
    gzip.decompress((ROOT / "tests" / "golden" / "first_graphs.json.gz").read_bytes())
)
"""Specs, and the graphs that the first edition made of them: all heads, activations, sides."""


def first_graphs(number: int) -> dict[str, bytes]:
    """ONNX models by name."""
    return {name: b64decode(data) for name, data in FIRST_GRAPHS[number]["graphs"].items()}
