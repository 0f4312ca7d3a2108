"""OpenVINO over an ONNX file, a system under test: ``python -m benchmarks.systems.openvino_model``.

The spec's file is an ONNX model by `ort_models`. Option of the spec: ``cache``, a directory in
which OpenVINO keeps what it compiled, its own means to start faster; it is filled by the first
start ever. Its hint is latency. Without a number of threads it takes as many as it likes. Needs the
package `openvino`, which may be installed in an interpreter of its own: nothing here imports ONNX
Runtime.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openvino  # type: ignore[import-not-found]

from sti.arrays import Float32Array
from sti.benchmark.system_process import Opened, Opener, ResidentSystem, Spec, serve


def prepare(spec: Spec) -> Opener:
    """Token ids are padded beforehand.

    Raises:
        ValueError: there is no such file.
    """
    if not Path(spec.file).is_file():
        raise ValueError(f"{spec.file}: no such file; write it with ort_models")
    feeds = spec.feeds()
    settings = {"PERFORMANCE_HINT": "LATENCY", "CACHE_DIR": str(spec.options["cache"])}
    if spec.threads is not None:
        settings["INFERENCE_NUM_THREADS"] = str(spec.threads)

    def opener() -> Opened:
        compiled = openvino.Core().compile_model(spec.file, "CPU", settings)
        request = compiled.create_infer_request()

        def answer() -> Float32Array:
            return np.array(request.infer(feeds)[0], dtype=np.float32)

        return ResidentSystem(answer)

    return opener


if __name__ == "__main__":
    sys.exit(serve(prepare))
