"""One session over one graph: settings and bindings.

In: a serialized graph, compute threads. Out: a ``Graph`` whose inputs and outputs are bound to
memory that is already there. Knows nothing of packs, blocks or fidelities.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.arrays import Float32Array
from sti.backend.onnxruntime.library import ort
from sti.backend.onnxruntime.release import check_release
from sti.device.process_limits import SESSION, Need, check_room, limit_error
from sti.errors import BackendError, StiError

_LONGEST = 500
"""Characters of what ONNX Runtime says."""


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
