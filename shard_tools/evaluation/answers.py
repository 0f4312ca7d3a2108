"""What each precision answers: its score on labelled texts, and how confident it is of them.

In: an open pack in memory, texts, a scorer, the precisions that plans and baselines run. Out:
``Answers`` by precision. Everything is measured by the engine's own graphs. Knows nothing of
targets or of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from shard_tools.evaluation.cells import Scope
from shard_tools.evaluation.evaluation_data import EvaluationData
from shard_tools.measuring.forward import Forward, Precision
from shard_tools.measuring.judge import confidence
from shard_tools.measuring.metrics import Score, Scorer
from sti.arrays import Float64Array

_ACCEPTED = 0.95
"""Share of texts in scope at which classifiers' recall out of scope is usually compared."""


@dataclass(frozen=True, slots=True)
class Confidences:
    """The probability of the best class, of each text; what a pack's thresholds are for."""

    in_scope: Float64Array
    out_of_scope: Float64Array

    def scope(self, threshold: float) -> Scope:
        """How well the texts are told apart where scores below ``threshold`` are rejected."""
        own = np.quantile(self.in_scope, 1.0 - _ACCEPTED)
        return Scope(
            accepted=float((self.in_scope >= threshold).mean()),
            recall=float((self.out_of_scope < threshold).mean()),
            recall_at_95=float((self.out_of_scope < own).mean()),
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """What one precision answered."""

    score: Score
    confidences: Confidences | None
    """None where no texts out of scope were given."""


def measure_answers(
    forward: Forward,
    data: EvaluationData,
    precisions: Iterable[Precision],
    scorer: Scorer,
    step: Callable[[], None],
) -> tuple[Mapping[Precision, Answers], int]:
    """Run the data at every precision.

    Args:
        forward: the pack.
        step: called after each precision.

    Returns:
        What each answered, and how many texts were cut to the model's longest.
    """
    batches = forward.batches(data.texts)
    others = forward.batches(data.out_of_scope) if data.out_of_scope else None
    rejection, found = forward.manifest.rejection, {}
    for precision in precisions:
        logits, confidences = forward.logits(batches, precision), None
        score = scorer.score(logits)
        if others is not None and rejection is not None:
            both = (logits, forward.logits(others, precision))
            confidences = Confidences(*(confidence(each, rejection.temperature) for each in both))
        found[precision] = Answers(score, confidences)
        step()
    return found, batches.truncated
