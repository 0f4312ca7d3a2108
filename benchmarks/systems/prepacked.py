"""A prepacked model of `prepacked_models` in ONNX Runtime, a system under test.

    python -m benchmarks.systems.prepacked

The spec's file is the directory of those models. Options of the spec:

    layers    left out: the whole model in one session. ``turn``: a session for each layer, opened,
              run and dropped, one layer after the other, at every run. ``pipe``: the same, with the
              next layer's session opened on a thread while one computes

Weights are mapped, so what a run reads is up to the page cache. Models were optimized when they
were saved; sessions leave them as they are, which opens them a good deal faster. On several threads
ONNX Runtime's default is one thread for each core.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sti.arrays import Float32Array
from sti.benchmark.system_process import Opened, Opener, ResidentSystem, Spec, serve

WHOLE, EMBED, HEAD = "whole.onnx", "embed.onnx", "head.onnx"

_Feeds = dict[str, NDArray[Any]]
_Open = Callable[[Path], ort.InferenceSession]


def layer_file(number: int) -> str:
    """The name of a layer's model."""
    return f"layer_{number:02d}.onnx"


def weights_file(model: Path) -> Path:
    """Where the weights of a model are; one with next to none has no such file."""
    return model.with_name(f"{model.name}.data")


def open_session(path: Path, *, threads: int | None, brief: bool) -> ort.InferenceSession:
    """A session over a model that was saved optimized.

    Args:
        threads: None: ONNX Runtime's default.
        brief: whether it is run once and dropped. Memory of its own and threads that wait actively
            would then cost more than they save.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    if brief:
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def in_turn(paths: Sequence[Path], opened: _Open) -> Iterator[ort.InferenceSession]:
    """Sessions over ``paths``, each opened when it is asked for."""
    for path in paths:
        yield opened(path)


class Pipe:
    """Sessions over paths, the next one opened on a thread meanwhile. Not thread-safe."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)

    def __call__(self, paths: Sequence[Path], opened: _Open) -> Iterator[ort.InferenceSession]:
        """As ``in_turn``."""
        ahead = self._thread.submit(opened, paths[0])
        for path in [*paths[1:], None]:
            session = ahead.result()
            if path is not None:
                ahead = self._thread.submit(opened, path)
            yield session
            del session

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


class _Piped(ResidentSystem):
    """A model in layers whose pipe is closed with it."""

    def __init__(self, pipe: Pipe, answer: Callable[[], Float32Array]) -> None:
        super().__init__(answer)
        self._pipe = pipe

    def close(self) -> None:
        """End the thread."""
        self._pipe.close()


def answer_in_layers(feeds: _Feeds, sessions: Iterator[ort.InferenceSession]) -> Float32Array:
    """Run one model after the other; each takes of the feeds what it asks for, and ``hidden``."""
    state = dict(feeds)
    for session in sessions:
        asked = {item.name: state[item.name] for item in session.get_inputs()}
        state["hidden"] = session.run(None, asked)[0]
        del session  # before the next one: there is room for one
    return np.asarray(state["hidden"], dtype=np.float32)


def prepare(spec: Spec) -> Opener:
    """Token ids are padded beforehand.

    Raises:
        ValueError: there are no such models, or an option is unknown.
    """
    place, order = Path(spec.file), spec.options.get("layers")
    if not (place / HEAD).exists():
        raise ValueError(f"{place}: no prepacked models; `python -m benchmarks.prepacked_models`")
    if order not in (None, "turn", "pipe"):
        raise ValueError(f"options of the spec: layers {order!r}; give `turn` or `pipe`")
    feeds = spec.feeds()

    def opened(path: Path) -> ort.InferenceSession:
        return open_session(path, threads=spec.threads, brief=order is not None)

    def whole() -> Opened:
        session = opened(place / WHOLE)
        return ResidentSystem(lambda: np.asarray(session.run(None, feeds)[0], dtype=np.float32))

    def layered() -> Opened:
        paths = [place / EMBED, *sorted(place.glob("layer_*.onnx")), place / HEAD]
        if order == "turn":
            return ResidentSystem(lambda: answer_in_layers(feeds, in_turn(paths, opened)))
        pipe = Pipe()
        return _Piped(pipe, lambda: answer_in_layers(feeds, pipe(paths, opened)))

    return whole if order is None else layered


if __name__ == "__main__":
    sys.exit(serve(prepare))
