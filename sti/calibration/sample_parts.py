"""What parts of packs are timed with: they have no tokenizer, and most cannot embed.

In: a part. Out: what its runs start from: made-up tokens where it has the embedding table, else
made-up hidden states. Knows nothing of plans.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sti.model.manifest import Manifest
from sti.pipeline.sources import HiddenStates
from sti.text.encoding import Alignment, Encoding


class SampleParts:
    """Makes starts for runs of one part. Safe to share between threads."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def start(self, batch: int, tokens: int) -> list[Encoding] | Callable[[], HiddenStates]:
        """``batch`` texts of ``tokens`` tokens each, as a run of the part starts from them."""
        rng = np.random.default_rng(batch * tokens)
        if self._manifest.holds_words:
            ids = rng.integers(self._manifest.embeddings.rows, size=(batch, tokens))
            types = np.zeros(tokens, np.int64)
            return [Encoding(row, types, False, Alignment(list)) for row in ids]
        shape = (batch * tokens, self._manifest.dimensions.hidden)
        states = HiddenStates(((tokens,) * batch,), rng.standard_normal(shape).astype(np.float32))
        return lambda: states
