"""A pack in this engine, a system under test: ``python -m sti.benchmark.systems.sti_pack``.

Options of the spec: ``latency``, ``memory``, ``preload`` and ``fidelity`` as ``Engine.open`` takes
them, and ``mode``: ``sequential`` reads, decodes and computes one step after the other.
"""

from __future__ import annotations

import sys

import numpy as np

from sti.arrays import Float32Array
from sti.benchmark.system_process import Opened, Opener, Spec, serve
from sti.engine.answers import EmbeddingAnswer, SpanAnswer
from sti.engine.engine import Engine
from sti.pipeline.runner import Mode

_SETTLE_S = 10.0


class _Pack:
    """An engine, asked the same texts again and again."""

    def __init__(self, engine: Engine, spec: Spec) -> None:
        self._engine, self._texts = engine, list(spec.texts)
        self._mode: Mode = "sequential" if spec.options.get("mode") == "sequential" else "planned"

    def run(self) -> Float32Array:
        """As ``Opened.run``."""
        result = self._engine.run(self._texts, mode=self._mode)
        match result.answer:
            case EmbeddingAnswer(embeddings):
                return embeddings
            case SpanAnswer(token_logits=rows):
                return np.concatenate(rows)
        return result.logits

    def settle(self) -> None:
        """Wait until what is to be held is."""
        self._engine.preloaded(_SETTLE_S)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def prepare(spec: Spec) -> Opener:
    """Nothing but the imports stays off the clock."""

    def opener() -> Opened:
        engine = Engine.open(
            spec.file,
            latency=spec.options.get("latency"),
            memory=spec.options.get("memory"),
            preload=spec.options.get("preload"),
            fidelity=spec.options.get("fidelity"),
            threads=spec.threads,
            history=False,
        )
        return _Pack(engine, spec)

    return opener


if __name__ == "__main__":
    sys.exit(serve(prepare))
