"""From logits to answers: classes with probabilities, values of a regression, labelled spans.

In: the head's output and the token offsets. Out: plain values. Knows nothing of plans or timing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sti.arrays import Float32Array
from sti.text.encoding import Encoding


@dataclass(frozen=True, slots=True)
class Label:
    """A class and its probability; for a regression the score is the predicted value itself.

    Probabilities are calibrated where the pack has a ``rejection``.
    """

    name: str
    score: float


@dataclass(frozen=True, slots=True)
class TextSpan:
    """A labelled stretch of the text, ``text[start:end]``; ``score`` is its least token's."""

    label: str
    text: str
    start: int
    end: int
    score: float


def _plain(item: Label | TextSpan) -> dict[str, Any]:
    if isinstance(item, Label):
        return {"name": item.name, "score": item.score}
    return {
        "label": item.label,
        "text": item.text,
        "start": item.start,
        "end": item.end,
        "score": item.score,
    }


def softmax(logits: Float32Array) -> Float32Array:
    """Probabilities along the last axis; a new array."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float32)


def class_labels(logits: Float32Array, names: Sequence[str]) -> tuple[tuple[Label, ...], ...]:
    """For each row of ``[n, classes]``, its labels by falling probability."""
    rows = []
    for row in softmax(logits):
        order = np.argsort(-row, kind="stable")
        rows.append(tuple(Label(names[i], float(row[i])) for i in order))
    return tuple(rows)


def reject(
    labels: Sequence[Sequence[Label]], accepted: Sequence[bool], name: str
) -> list[list[Label]]:
    """Each text's labels, with ``name`` in front where the text is not accepted.

    The score of ``name`` is what the best label leaves over, ``1 - score``.
    """
    return [
        list(row) if inside else [Label(name, 1.0 - row[0].score), *row]
        for row, inside in zip(labels, accepted, strict=True)
    ]


def regression_labels(logits: Float32Array, names: Sequence[str]) -> tuple[tuple[Label, ...], ...]:
    """For each row of ``[n, outputs]``, the predicted values under their names."""
    return tuple(
        tuple(Label(name, float(value)) for name, value in zip(names, row, strict=True))
        for row in logits
    )


def text_spans(
    text: str, encoding: Encoding, logits: Float32Array, names: Sequence[str]
) -> tuple[TextSpan, ...]:
    """Labelled spans of one text from token logits ``[tokens, classes]``.

    A word takes the label of its first token. ``B-``/``I-`` prefixes join words to spans; without
    them neighbouring words of one label join. ``O`` labels nothing.
    """
    spans: list[TextSpan] = []
    open_label, open_word = "", -2
    probabilities = softmax(logits)
    best = probabilities.argmax(axis=-1)
    word_ids = [int(word) for word in encoding.word_ids]
    for place, word in enumerate(word_ids):
        if word < 0 or (place and word_ids[place - 1] == word):
            continue
        name = names[int(best[place])]
        prefix, label = name[:2], name[2:] if name[:2] in ("B-", "I-") else name
        if name == "O":
            open_label = ""
            continue
        last = next((p for p in range(place, len(word_ids)) if word_ids[p] != word), len(word_ids))
        start, end = int(encoding.offsets[place][0]), int(encoding.offsets[last - 1][1])
        score = float(probabilities[place, best[place]])
        if label == open_label and prefix != "B-" and word == open_word + 1:
            joined = spans.pop()
            start, score = joined.start, min(joined.score, score)
        spans.append(TextSpan(label, text[start:end], start, end, score))
        open_label, open_word = label, word
    return tuple(spans)
