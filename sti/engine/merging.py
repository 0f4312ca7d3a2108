"""Several results in a row become one: answers in order, times one after another.

In: results of batches of the same engine. Out: a ``Result`` that has them as its parts. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sti.engine.answers import (
    Answer,
    ClassAnswer,
    EmbeddingAnswer,
    LabelAnswer,
    SpanAnswer,
    ValueAnswer,
)
from sti.engine.results import Result
from sti.engine.timing import Timing
from sti.pipeline.trace import Trace
from sti.planning.span import Span


def merge_results(results: Sequence[Result]) -> Result:
    """One result for the texts of all.

    ``Result`` says which of its fields are those of the part with the least expected quality, of
    several the first one. Times are as if each part began when the one before it ended. A single
    result is given back as it is.

    Args:
        results: at least one, in the order of their texts, for the same task.
    """
    parts = tuple(part for result in results for part in result.parts)
    if len(parts) == 1:
        return parts[0]
    least = min(parts, key=_expected)
    trace = _trace(parts, least)
    return replace(
        least,
        texts=tuple(text for part in parts for text in part.texts),
        answer=_joined(parts, least),
        timing=Timing(
            sum(part.timing.total_s for part in parts),
            sum(part.timing.plan_s for part in parts),
            sum(part.timing.stall_s for part in parts),
            trace.lanes,
            trace.waits_s,
        ),
        bytes_read=sum(part.bytes_read for part in parts),
        trace=trace,
        tokens=sum(part.tokens for part in parts),
        truncated=sum(part.truncated for part in parts),
        notices=tuple(notice for part in parts for notice in part.notices),
        merged=parts,
    )


def _expected(result: Result) -> tuple[float, float]:
    """What results are compared by: the metric to expect, else the loss; the least is the worst."""
    predicted = result.plan.predicted
    metric = 0.0 if result.quality is None else result.quality.value
    return metric, 0.0 if predicted is None else -predicted.loss


def _joined(parts: Sequence[Result], least: Result) -> Answer:
    """The answers of all parts in a row; a threshold is that of ``least``."""
    answers, model = [part.answer for part in parts], least.answer
    match model:
        case EmbeddingAnswer():
            rows = [item.embeddings for item in answers if isinstance(item, EmbeddingAnswer)]
            return EmbeddingAnswer(np.concatenate(rows))
        case ClassAnswer():
            classes = [item for item in answers if isinstance(item, ClassAnswer)]
            return ClassAnswer(
                tuple(row for item in classes for row in item.classes),
                np.concatenate([item.logits for item in classes]),
                tuple(inside for item in classes for inside in item.accepted),
                model.threshold,
                model.rejection,
            )
        case LabelAnswer():
            labels = [item for item in answers if isinstance(item, LabelAnswer)]
            return LabelAnswer(
                tuple(row for item in labels for row in item.classes),
                np.concatenate([item.logits for item in labels]),
                model.threshold,
            )
        case ValueAnswer():
            values = [item for item in answers if isinstance(item, ValueAnswer)]
            return ValueAnswer(
                tuple(row for item in values for row in item.values),
                np.concatenate([item.logits for item in values]),
            )
        case SpanAnswer():
            spans = [item for item in answers if isinstance(item, SpanAnswer)]
            return SpanAnswer(
                tuple(row for item in spans for row in item.spans),
                tuple(rows for item in spans for rows in item.token_logits),
            )


def _trace(parts: Sequence[Result], least: Result) -> Trace:
    """What all parts did, each from the end of the one before."""
    lanes: dict[str, list[Span]] = {}
    begun_s = 0.0
    for part in parts:
        for lane, spans in part.trace.lanes.items():
            lanes.setdefault(lane, []).extend(
                Span(begun_s + span.start_s, begun_s + span.end_s, span.name) for span in spans
            )
        begun_s += part.timing.total_s
    downgrades = tuple(item for part in parts for item in part.downgrades)
    return Trace(
        {lane: tuple(spans) for lane, spans in lanes.items()},
        least.trace.threads,
        downgrades,
        _waits(parts),
    )


def _waits(parts: Sequence[Result]) -> dict[str, float] | None:
    """What each thread waited for a core; None where that is not known of all parts."""
    waits_s: dict[str, float] = {}
    for part in parts:
        if part.trace.waits_s is None:
            return None
        for lane, waited_s in part.trace.waits_s.items():
            waits_s[lane] = waits_s.get(lane, 0.0) + waited_s
    return waits_s
