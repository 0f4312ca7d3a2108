"""LiteRT, a system under test: ``python -m benchmarks.systems.litert_encoder``.

The spec's file is a model by `litert_model`, for one text of a fixed length. Products are those of
XNNPACK, LiteRT's default. Without a number of threads it is given all cores. Needs the package
`ai-edge-litert`, which may be installed in an interpreter of its own: nothing here imports ONNX
Runtime.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-not-found]

from sti.arrays import Float32Array
from sti.benchmark.system_process import Opened, Opener, ResidentSystem, Spec, serve
from sti.device import host


def prepare(spec: Spec) -> Opener:
    """Nothing but the imports stays off the clock.

    Raises:
        ValueError: there is no such file, or it takes other texts.
    """
    if not Path(spec.file).is_file():
        raise ValueError(f"{spec.file}: no such file; write it with litert_model")

    def opener() -> Opened:
        model = Interpreter(model_path=spec.file, num_threads=spec.threads or host.core_count())
        (asked,), (given,) = model.get_input_details(), model.get_output_details()
        ids = np.array(spec.ids, dtype=asked["dtype"])
        if list(ids.shape) != list(asked["shape"]):
            raise ValueError(f"{spec.file}: takes ids of shape {list(asked['shape'])}")
        model.allocate_tensors()

        def answer() -> Float32Array:
            model.set_tensor(asked["index"], ids)
            model.invoke()
            return np.asarray(model.get_tensor(given["index"]), dtype=np.float32)

        return ResidentSystem(answer)

    return opener


if __name__ == "__main__":
    sys.exit(serve(prepare))
