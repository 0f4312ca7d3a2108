"""What a run answers: arrays, labels, spans of text, and what it cost.

In: the head's output and the token offsets; for packs that can reject a text, the plan's expected
loss too. Out: ``Result`` and the plain values of ``classify`` and ``tag``. Knows nothing of files,
plans in the making, or threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sti.arrays import Float32Array
from sti.engine.answers import Label, TextSpan, _plain, class_labels, regression_labels, text_spans
from sti.model.manifest import Manifest
from sti.pipeline.trace import PLAN, Trace
from sti.planning.plan import Plan
from sti.planning.prediction import expected_loss
from sti.planning.timeline import Span, busy_s
from sti.text.encoding import Encoding


@dataclass(frozen=True, slots=True)
class Timing:
    """What a call took, in seconds. Lanes overlap, so they add up to more than the total."""

    total_s: float
    """From texts in to answers out."""
    plan_s: float
    """Making the plan, for the first texts of their length."""
    stall_s: float
    """Compute waiting for weights."""
    lanes: Mapping[str, tuple[Span, ...]]
    """Lane (``storage``, ``decode``, ``compute``) to its work, in order."""

    def busy_s(self, lane: str) -> float:
        """Seconds in which a lane worked, planning aside; 0 for a lane that there is not."""
        return busy_s(span for span in self.lanes.get(lane, ()) if span.name != PLAN)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; seconds, to the microsecond."""
        return {
            "total_s": round(self.total_s, 6),
            "plan_s": round(self.plan_s, 6),
            "stall_s": round(self.stall_s, 6),
            "busy_s": {lane: round(self.busy_s(lane), 6) for lane in self.lanes},
            "lanes": {
                lane: [
                    {
                        "name": span.name,
                        "start_s": round(span.start_s, 6),
                        "end_s": round(span.end_s, 6),
                    }
                    for span in spans
                ]
                for lane, spans in self.lanes.items()
            },
        }


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
            "timing": self.timing.to_json(),
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
    timing = Timing(total_s, trace.plan_s, trace.stall_s(), trace.lanes)
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
