"""One session over one graph: settings, bindings, and this processor's kind of int8 product.

In: a serialized graph, compute threads. Out: a ``Graph`` whose inputs and outputs are bound to
memory that is already there. Knows nothing of packs, blocks or fidelities.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from functools import cache
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Float32Array
from sti.backend.onnxruntime.library import ort
from sti.device.process_limits import SESSION, Need, check_room, limit_error
from sti.errors import BackendError, StiError

_PROBE = base64.b64decode(
    "CAk6ZgoYCgFhCgFiEgF5Ig1NYXRNdWxJbnRlZ2VyEgVwcm9iZVoVCgFhEhAKDggCEgoKAxIBbgoDEgFrWhUKAWIS"
    "EAoOCAMSCgoDEgFrCgMSAW1iFQoBeRIQCg4IBhIKCgMSAW4KAxIBbUIECgAQEQ=="
)
"""An ONNX graph of one MatMulInteger: u8 ``a [n, k]`` by s8 ``b [k, m]`` -> s32 ``y``."""
_PROBE_U8 = _PROBE.replace(b"\x08\x03", b"\x08\x02")
"""The same for u8 ``b``."""

_RATE_REPEATS = 12

_LONGEST = 500
"""Characters of what ONNX Runtime says."""

OLDEST_ORT = (1, 24, 1)
"""Earlier releases read what a graph names as external data from any file of the user's."""


def ort_version() -> str:
    """Version of ONNX Runtime in use."""
    return str(ort.__version__)


def is_too_old(version: str) -> bool:
    """Whether a release of ONNX Runtime is older than what packs may be run with."""
    parts = version.split(".")[:3]
    return all(part.isdigit() for part in parts) and tuple(map(int, parts)) < OLDEST_ORT


@cache
def check_release() -> None:
    """Refuse to load graphs into a release that follows them to other files.

    Raises:
        BackendError: it is one; names it.
    """
    if is_too_old(ort_version()):
        oldest = ".".join(map(str, OLDEST_ORT))
        raise BackendError(
            f"onnxruntime {ort_version()} lets a graph read any file of the user's; STI needs "
            f"{oldest} or later: `pip install 'onnxruntime>={oldest}'`"
        )


class Graph:
    """A session with a binding. Inputs and outputs stay bound until they are bound anew.

    Not thread-safe, but ``another`` may be used by another thread at the same time.

    Args:
        model: serialized, or its path, beside which its external data lies.

    Raises:
        BackendError: ONNX Runtime refuses the graph, or is too old.
        LimitError: this process may not take the memory for it.
    """

    __slots__ = ("_bound", "binding", "inputs", "name", "outputs", "session")

    def __init__(self, name: str, model: bytes | str, options: ort.SessionOptions) -> None:
        check_release()
        self.name = name
        check_room(SESSION if isinstance(model, bytes) else _with_files(model))
        try:
            self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise limit_error(error) or BackendError(
                f"graph {name!r} is refused by onnxruntime {ort.__version__}: {_words(error)}; "
                "rebuild or fetch the pack again"
            ) from error
        self.inputs = frozenset(item.name for item in self.session.get_inputs())
        self.outputs = tuple(item.name for item in self.session.get_outputs())
        self._unbind()

    def another(self) -> Graph:
        """The same session with a binding of its own, to which nothing is bound yet."""
        made = copy(self)
        made._unbind()
        return made

    def _unbind(self) -> None:
        self.binding = self.session.io_binding()
        self._bound: dict[str, Any] = {}

    def bind(self, name: str, value: Any) -> None:
        """Bind an input to an OrtValue; one that is bound already is left alone."""
        if self._bound.get(name) is not value:
            # Forgotten first: an interrupt must not leave it noted where another one is bound.
            before = self._bound.pop(name, None)
            try:
                self.binding.bind_ortvalue_input(name, value)
            except Exception as error:
                raise self._failed(error) from error
            del before
            self._bound[name] = value

    def bind_array(self, name: str, array: NDArray[Any]) -> None:
        """Bind an input to an array's own memory, which must be contiguous and stay alive."""
        self._bound.pop(name, None)
        try:
            self.binding.bind_cpu_input(name, array)
        except Exception as error:
            raise self._failed(error) from error

    def bind_output(self, name: str, value: Any) -> None:
        """Bind an output to memory that is already there, as ``bind`` does an input."""
        if self._bound.get(name) is not value:
            before = self._bound.pop(name, None)
            try:
                self.binding.bind_ortvalue_output(name, value)
            except Exception as error:
                raise self._failed(error) from error
            del before
            self._bound[name] = value

    def answer(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs for given inputs, in new arrays; bindings are left alone.

        Raises:
            BackendError: the graph cannot be run on them.
        """
        try:
            found: list[NDArray[Any]] = self.session.run(None, dict(feeds))
        except Exception as error:
            raise self._failed(error) from error
        return found

    def run_to_new(self) -> Float32Array:
        """Compute the only output, of float32, into a new array."""
        try:
            self.binding.bind_output(self.outputs[0], "cpu")
            self.run()
            return np.array(self.binding.copy_outputs_to_cpu()[0], dtype=np.float32)
        except BackendError:
            raise
        except Exception as error:  # an output that is none, or of other values
            raise self._failed(error) from error
        finally:
            # The output lies in the arena, which could not give back the region around it.
            self.binding.clear_binding_outputs()

    def run(self) -> None:
        """Compute the outputs."""
        try:
            self.session.run_with_iobinding(self.binding)
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StiError:
        return limit_error(error) or BackendError(
            f"graph {self.name!r} failed: {_words(error)}; rebuild or fetch the pack again"
        )


def _words(error: Exception) -> str:
    """What ONNX Runtime says, in one line that a terminal can take: names in it are the graph's."""
    words = " ".join(str(error).split())[:_LONGEST]
    return words if words.isprintable() else repr(words)


def _with_files(model: str) -> Need:
    """What a session over a file takes, which maps what lies beside it."""
    with suppress(OSError):
        size = sum(item.stat().st_size for item in os.scandir(os.path.dirname(model)))
        return SESSION._replace(space_bytes=SESSION.space_bytes + size)
    return SESSION


def ort_value(array: NDArray[Any]) -> Any:
    """An OrtValue over the array's own memory; the array must stay alive and contiguous."""
    return ort.OrtValue.ortvalue_from_numpy(array)


def saturates(options: ort.SessionOptions) -> bool:
    """Whether pairs of 255 x 127 overflow the 16-bit sums of this processor's product.

    Asked of the product itself rather than of processor flags (microsoft/onnxruntime#6004).
    """
    probe = Graph("probe", _PROBE, options)
    size = 64
    a, b = np.full((size, size), 255, np.uint8), np.full((size, size), 127, np.int8)
    found = probe.answer({"a": a, "b": b})[0]
    return bool((found != 255 * 127 * size).any())


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


@cache
def _share_arena() -> None:
    """Give all sessions of the process one arena: half the memory of an arena each."""
    info = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    with suppress(RuntimeError):  # another part of the program registered one: it serves as well
        ort.create_and_register_allocator(info, None)


def _plain_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # What fails is raised; written to the terminal, names in a graph could steer it.
    options.log_severity_level = 4
    # The graphs are written with the fused nodes they want; an optimizer could only undo that.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = False
    return options


def session_options(threads: int) -> ort.SessionOptions:
    """Session options, as measured to be best for small graphs whose weights are inputs."""
    _share_arena()
    options = _plain_options(threads)
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Spinning workers would starve the decode lane of its core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def constant_options(threads: int) -> ort.SessionOptions:
    """Session options, as measured to be best for one graph with all weights as its constants.

    Nothing else works meanwhile, so the threads of a product spin; they stop when a run ends.
    """
    _share_arena()
    options = _plain_options(threads)
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def save_prepacked(source: str, target: str, *, file: str, least: int) -> None:
    """Save a model with its weights packed as this processor's products want them.

    Args:
        source: path of the model.
        target: path of the model to be written.
        file: name of the file for weights, beside ``target``.
        least: bytes; smaller initializers are kept inside the model.

    Raises:
        BackendError: ONNX Runtime refuses it, or cannot write it.
    """
    options = _plain_options(1)
    options.optimized_model_filepath = target
    for name, value in (
        ("session.save_external_prepacked_constant_initializers", "1"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", str(least)),
        ("session.optimized_model_external_initializers_file_name", file),
    ):
        options.add_session_config_entry(name, value)
    Graph("packing", source, options)
