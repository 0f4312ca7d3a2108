"""The int8 product of this processor: its kind, its speed, and the arena, shrunk by one of them.

In: sizes of a product, session options. Out: what was found by computing it. Knows nothing of
packs, blocks or fidelities.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from time import perf_counter

import numpy as np

from sti.backend.onnxruntime.library import ort
from sti.backend.onnxruntime.session import Graph, ort_value, session_options

_PROBE = base64.b64decode(
    "CAk6ZgoYCgFhCgFiEgF5Ig1NYXRNdWxJbnRlZ2VyEgVwcm9iZVoVCgFhEhAKDggCEgoKAxIBbgoDEgFrWhUKAWIS"
    "EAoOCAMSCgoDEgFrCgMSAW1iFQoBeRIQCg4IBhIKCgMSAW4KAxIBbUIECgAQEQ=="
)
"""An ONNX graph of one MatMulInteger: u8 ``a [n, k]`` by s8 ``b [k, m]`` -> s32 ``y``."""
_PROBE_U8 = _PROBE.replace(b"\x08\x03", b"\x08\x02")
"""The same for u8 ``b``."""

_RATE_REPEATS = 12


def saturates(options: ort.SessionOptions) -> bool:
    """Whether pairs of 255 x 127 overflow the 16-bit sums of this processor's product.

    Asked of the product itself rather than of processor flags (microsoft/onnxruntime#6004).
    """
    probe = Graph("probe", _PROBE, options)
    size = 64
    a, b = np.full((size, size), 255, np.uint8), np.full((size, size), 127, np.int8)
    found = probe.answer({"a": a, "b": b})[0]
    return bool((found != 255 * 127 * size).any())


def product_rate(rows: int, inner: int, outer: int, *, narrow: bool) -> float:
    """Products a second of ``[rows, inner]`` by ``[inner, outer]``, at best, by one thread.

    The kernel is the one that this processor multiplies blocks with: weights are an input.

    Args:
        narrow: the kernel of weights of 7 bits, which is another one where products saturate.
    """
    options = session_options(1)
    shifted = not narrow and saturates(options)
    graph = Graph("probe", _PROBE_U8 if shifted else _PROBE, options)
    a = np.full((rows, inner), 3, dtype=np.uint8)
    b = np.full((inner, outer), 3, dtype=np.uint8 if shifted else np.int8)
    y = np.empty((rows, outer), dtype=np.int32)
    graph.bind("a", ort_value(a))
    graph.bind("b", ort_value(b))
    graph.bind_output("y", ort_value(y))
    best = float("inf")
    for _ in range(_RATE_REPEATS):
        start = perf_counter()
        graph.run()
        best = min(best, perf_counter() - start)
    return rows * inner * outer / best


def shrink_arena() -> None:
    """Give the system back what the arena of all sessions keeps and nobody uses."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    with suppress(Exception):  # where there is no such arena there is nothing to give back
        graph = Graph("probe", _PROBE, session_options(1))
        graph.bind("a", ort_value(np.ones((1, 1), np.uint8)))
        graph.bind("b", ort_value(np.ones((1, 1), np.int8)))
        # An output of the arena's own would be there still, and keep all of the memory around it.
        graph.bind_output("y", ort_value(np.empty((1, 1), np.int32)))
        graph.session.run_with_iobinding(graph.binding, options)
