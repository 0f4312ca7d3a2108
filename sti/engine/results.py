"""What a run answers: arrays, labels, spans of text, and what it cost.

In: the head's output and the token offsets; for packs that can reject a text, the plan's expected
loss too. Out: ``Result`` and the plain values of ``classify`` and ``tag``. Knows nothing of files,
plans in the making, or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sti.arrays import Float32Array
from sti.engine.answers import Label, TextSpan, _plain, class_labels, regression_labels, text_spans
from sti.model.manifest import Manifest
from sti.pipeline.trace import Trace
from sti.planning.plan import Plan
from sti.planning.prediction import expected_loss
from sti.text.encoding import Encoding


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds. Sums of a lane's busy time; lanes overlap, so they add up to more than total.

    ``total``: from texts in to answer out. ``plan``: making the plan, for the first texts of their
    length. ``compute``: all else on its lane. ``stall``: compute waiting for weights.
    """

    total: float
    plan: float
    io: float
    decode: float
    compute: float
    stall: float


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one call. Arrays are the caller's to keep and change."""

    embeddings: Float32Array | None
    """``[n, d]``, for embedding packs."""
    logits: Float32Array | tuple[Float32Array, ...] | None
    """``[n, classes]``; for tagging packs one ``[tokens, classes]`` a text."""
    labels: tuple[tuple[Label, ...], ...] | tuple[tuple[TextSpan, ...], ...] | None
    """For each text: classes best first, regressed values in order, or labelled spans in order."""
    accepted: tuple[bool, ...] | None
    """For each text, whether it is in scope: whether its best class scores at least ``threshold``.
    None for packs without a ``rejection``, which answer every text."""
    threshold: float | None
    """The least score in scope under this plan; None where ``accepted`` is."""
    timing: Timing
    bytes_read: int
    """Bytes read from storage in this call, token embeddings included."""
    plan: Plan
    """The plan as used."""
    trace: Trace
    truncated: int
    """How many texts were cut to the model's token limit."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object: answers as lists, timing, bytes, and the plan.

        ``in_scope`` and ``threshold`` are there for packs that can reject a text.
        """
        answers: dict[str, Any] = {}
        if self.embeddings is not None:
            answers["embeddings"] = self.embeddings.tolist()
        if self.logits is not None:
            answers["logits"] = [row.tolist() for row in self.logits]
        if self.labels is not None:
            answers["labels"] = [[_plain(item) for item in row] for row in self.labels]
        if self.accepted is not None:
            answers |= {"in_scope": list(self.accepted), "threshold": self.threshold}
        return {
            **answers,
            "timing_ms": {
                name: round(getattr(self.timing, name), 3)
                for name in ("total", "plan", "io", "decode", "compute", "stall")
            },
            "bytes_read": self.bytes_read,
            "truncated": self.truncated,
            "plan": self.plan.to_json(),
        }


def make_result(
    manifest: Manifest,
    texts: Sequence[str | tuple[str, str]],
    encodings: Sequence[Encoding],
    outputs: Sequence[Float32Array],
    *,
    plan: Plan,
    trace: Trace,
    bytes_read: int,
    total_s: float,
) -> Result:
    """Put a run's outputs, one array a text, into the form of the pack's task."""
    names = manifest.labels
    embeddings: Float32Array | None = None
    logits: Float32Array | tuple[Float32Array, ...] | None = None
    labels: tuple[tuple[Label, ...], ...] | tuple[tuple[TextSpan, ...], ...] | None = None
    accepted, threshold = None, None
    if manifest.task == "embedding":
        embeddings = np.stack(outputs)
    elif manifest.task == "tagging":
        cut = [row[: len(item.ids)] for row, item in zip(outputs, encodings, strict=True)]
        logits = tuple(cut)
        labels = tuple(
            text_spans(text if isinstance(text, str) else text[0], item, row, names)
            for text, item, row in zip(texts, encodings, cut, strict=True)
        )
    elif manifest.task == "regression":
        logits = np.stack(outputs)
        labels = regression_labels(logits, names)
    elif (rejection := manifest.rejection) is None:
        logits = np.stack(outputs)
        labels = class_labels(logits, names)
    else:
        logits = np.stack(outputs)
        labels = classes = class_labels(logits / rejection.temperature, names)
        threshold = rejection.threshold(expected_loss(manifest, plan))
        accepted = tuple(row[0].score >= threshold for row in classes)
    timing = Timing(
        total=total_s * 1e3,
        plan=trace.plan_s * 1e3,
        io=trace.busy_s("storage") * 1e3,
        decode=trace.busy_s("decode") * 1e3,
        compute=(trace.busy_s("compute") - trace.plan_s) * 1e3,
        stall=trace.stall_s() * 1e3,
    )
    truncated = sum(item.truncated for item in encodings)
    return Result(
        embeddings=embeddings,
        logits=logits,
        labels=labels,
        accepted=accepted,
        threshold=threshold,
        timing=timing,
        bytes_read=bytes_read,
        plan=plan,
        trace=trace,
        truncated=truncated,
    )
