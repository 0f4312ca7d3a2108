"""CTranslate2, a system under test: ``python -m benchmarks.systems.ctranslate2_encoder``.

The spec's file is a directory by CTranslate2's own converter:

    python -m ctranslate2.converters.transformers --model CHECKPOINT --output_dir OUT \
        --quantization int8

All texts go through the encoder as one batch of token ids; their hidden states are pooled here
(mean, L2 norm). Without a number of threads it is given all cores. Needs the package `ctranslate2`,
which may be installed in an interpreter of its own: nothing here imports ONNX Runtime.
"""

from __future__ import annotations

import sys
from pathlib import Path

import ctranslate2  # type: ignore[import-not-found]
import numpy as np

from benchmarks.systems.pooling import mean_pooled
from sti.arrays import Float32Array
from sti.benchmark.system_process import Opened, Opener, ResidentSystem, Spec, serve
from sti.device import host


def prepare(spec: Spec) -> Opener:
    """Nothing but the imports stays off the clock.

    Raises:
        ValueError: there is no converted model.
    """
    if not (Path(spec.file) / "model.bin").is_file():
        raise ValueError(f"{spec.file}: no model.bin; convert a checkpoint with CTranslate2")
    rows = [list(row) for row in spec.ids]

    def opener() -> Opened:
        encoder = ctranslate2.Encoder(
            spec.file,
            device="cpu",
            compute_type="int8",
            inter_threads=1,
            intra_threads=spec.threads or host.core_count(),
        )

        def answer() -> Float32Array:
            hidden = np.array(encoder.forward_batch(rows).last_hidden_state)
            return mean_pooled(hidden, [len(row) for row in rows])

        return ResidentSystem(answer)

    return opener


if __name__ == "__main__":
    sys.exit(serve(prepare))
