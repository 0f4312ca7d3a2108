"""A whole model in ONNX Runtime as a system under test, in a process of its own.

The model takes ``input_ids`` and, where it has them, ``attention_mask`` and ``token_type_ids``,
each int64 ``[batch, tokens]``; its first output is the answer. Weights beside the model (external
data) are mapped by ONNX Runtime. Option of the spec: ``spinning``, whether its threads wait
actively; left out, it is ONNX Runtime's default.
"""

from __future__ import annotations

import sys

import numpy as np

from sti.arrays import Float32Array
from sti.backend.onnxruntime.whole_model import WholeModel
from sti.benchmark.system_process import Opened, Opener, ResidentSystem, Spec, serve
from sti.errors import BackendError


def prepare(spec: Spec) -> Opener:
    """Token ids are padded beforehand."""
    given = spec.feeds()

    def opener() -> Opened:
        model = WholeModel(spec.file, threads=spec.threads, spinning=spec.options.get("spinning"))
        unknown = [name for name in model.inputs if name not in given]
        if unknown:
            raise BackendError(
                f"{spec.file}: asks for {', '.join(unknown)}; known inputs are {', '.join(given)}"
            )
        feeds = {name: given[name] for name in model.inputs}

        def answer() -> Float32Array:
            return np.asarray(model.run(feeds), dtype=np.float32)

        return ResidentSystem(answer)

    return opener


if __name__ == "__main__":
    sys.exit(serve(prepare))
