"""What the arena of ONNX Runtime gives back: in a process of its own, as all sessions share it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from onnx import TensorProto, helper

from sti.device import host
from tests.support.commands import ENVIRONMENT

VALUES = 4_000_000
"""Float32 values of the only output, which the arena has a region of its own for."""
LEFT = 2_000_000
"""Bytes that may be left of 16 MB: sessions, objects."""
CHILD = """
import sys
import numpy as np
from sti.backend.onnxruntime.products import shrink_arena
from sti.backend.onnxruntime.session import Graph, ort_value, session_options
from sti.device import host

graph = Graph("doubled", sys.stdin.buffer.read(), session_options(1))
x = np.ones(int(sys.argv[1]), np.float32)
few = np.ones(1, np.float32)

# Fills the first region, which is never given back, so that no small output finds a place there.
full = graph.another()
full.bind_array("x", x[: (1 << 20) // 4])
full.binding.bind_output("y", "cpu")
full.run()
before = host.anonymous_bytes()

def run():
    for values in (x, few):
        if sys.argv[2] == "to new":
            graph.bind_array("x", values)
            assert (graph.run_to_new() == 2).all()
        else:
            assert (graph.answer({"x": values})[0] == 2).all()

run()
kept = host.anonymous_bytes() - before
shrink_arena()
host.trim_heap()
print(kept, host.anonymous_bytes() - before)
"""


@pytest.mark.skipif(host.anonymous_bytes() is None, reason="the system does not count memory")
@pytest.mark.parametrize("run", ["to new", "answer"])
def test_an_arena_gives_all_back_that_runs_took(run: str) -> None:
    sizes = [["n"], ["n"]]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, size)
        for name, size in zip("xy", sizes, strict=True)
    )
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "doubled", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = subprocess.run(
        [sys.executable, "-c", CHILD, str(VALUES), run],
        input=model.SerializeToString(),
        capture_output=True,
        check=True,
        env=ENVIRONMENT,
    )
    kept, left = map(int, found.stdout.split())
    assert kept > 4 * VALUES - LEFT, "the arena keeps it for the next run"
    assert left < LEFT
