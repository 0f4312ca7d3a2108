"""How far answers are from those of the full model, and how accurate they are. Pure.

In: logits of calibration texts, labels. Out: for each text the loss against a fixed base (the full
model at the top of the ladder), the answer, and the score by which it could be rejected; and the
metric of a set of answers. The loss needs no labels and is zero for the base, so differences of a
thousandth of a point of accuracy show in it. Knows nothing of packs or plans.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shard_tools.measuring.metrics import spearman
from sti.arrays import Float32Array, Float64Array
from sti.errors import RunError

LOSS, ANSWER, CONFIDENCE = 0, 1, 2
"""Rows of what ``Judge.judge`` returns."""
ROWS = 3

_GOLDEN = 0.618033988749895
_LOG_TEMPERATURES = (-3.0, 3.0)  # natural logarithms: 0.05 to 20
_STEPS = 40
_LEAST_VARIANCE = 1e-12


class Judge:
    """Compares answers with those of the full model.

    Args:
        base: its logits, ``[n, outputs]``.
        labels: class numbers, or the values of a regression, ``[n]``.
        regression: whether the first output is a value rather than a class's logit.

    Attributes:
        temperature: what logits are divided by to make scores that are probabilities.
        metric: ``accuracy`` or ``spearman``.

    Raises:
        RunError: the base has answers that are no finite numbers.
    """

    def __init__(self, base: Float32Array, labels: Sequence[float], *, regression: bool) -> None:
        _check_finite(base)
        self.metric = "spearman" if regression else "accuracy"
        self._labels = np.asarray(labels, dtype=np.float64)
        self._regression = regression
        self._base = base.astype(np.float64) if regression else log_softmax(base)
        self._variance = max(float(self._base[:, 0].var()), _LEAST_VARIANCE)
        self.temperature = 1.0 if regression else fit_temperature(base, self._labels)

    def judge(self, logits: Float32Array) -> Float32Array:
        """Float32 ``[3, n]``: each text's loss (nats; squared error over variance), its answer
        (class or value), and how sure it is: the probability of the best class (1 for regressions).

        Raises:
            RunError: an answer is no finite number.
        """
        _check_finite(logits)
        found = np.ones((ROWS, len(logits)), dtype=np.float32)
        if self._regression:
            found[LOSS] = np.square(logits[:, 0] - self._base[:, 0]) / self._variance
            found[ANSWER] = logits[:, 0]
            return found
        logs = log_softmax(logits)
        found[LOSS] = np.maximum((np.exp(self._base) * (self._base - logs)).sum(axis=1), 0.0)
        found[ANSWER] = logits.argmax(axis=1)
        found[CONFIDENCE] = confidence(logits, self.temperature)
        return found

    def value(self, answers: Float32Array) -> float:
        """The metric of answers ``[n]`` against the labels."""
        if self._regression:
            return spearman(answers.astype(np.float64), self._labels)
        return float(self.hits(answers).mean())

    def hits(self, answers: Float32Array) -> Float64Array:
        """1 where an answer, ``[..., n]``, is the label, else 0 (classes only)."""
        return np.asarray(answers == self._labels, dtype=np.float64)


def _check_finite(logits: Float32Array) -> None:
    if not np.isfinite(logits).all():
        raise RunError("the pack gives answers that are no finite numbers; build it again")


def log_softmax(logits: Float32Array) -> Float64Array:
    """Logarithms of the probabilities, ``[n, classes]``."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def confidence(logits: Float32Array, temperature: float) -> Float64Array:
    """Probability of each text's best class, ``[n]``."""
    cooled = logits.astype(np.float64) / temperature
    return np.asarray(1.0 / np.exp(cooled - cooled.max(axis=1, keepdims=True)).sum(axis=1))


def fit_temperature(logits: Float32Array, labels: Float64Array) -> float:
    """The temperature at which the labels are most likely, by golden section."""
    classes = labels.astype(np.intp)[:, None]

    def unlikely(log_temperature: float) -> float:
        logs = log_softmax((logits / np.exp(log_temperature)).astype(np.float32))
        return -float(np.take_along_axis(logs, classes, axis=1).mean())

    low, high = _LOG_TEMPERATURES
    for _ in range(_STEPS):
        reach = _GOLDEN * (high - low)
        if unlikely(high - reach) < unlikely(low + reach):
            high = low + reach
        else:
            low = high - reach
    return float(f"{np.exp((low + high) / 2.0):.4g}")
