"""Answers of ``sti run`` in words: what was found in a text, and how much texts are alike.

In: answers. Out: lines for people.
"""

from __future__ import annotations

import numpy as np

from sti.arrays import Float32Array
from sti.engine.answers import (
    Answer,
    ClassAnswer,
    EmbeddingAnswer,
    Label,
    LabelAnswer,
    SpanAnswer,
    ValueAnswer,
)
from sti.text.control_characters import one_line
from sti.text.encoding import Text

SHOWN_NUMBERS = 6
SHOWN_LABELS = 5
SHOWN_CHARACTERS = 48


def answer_words(number: int, index: int, text: Text, answer: Answer) -> str:
    """One text and what was found.

    Args:
        number: what the text is called.
        index: where its answer is in ``answer``.
    """
    match answer:
        case EmbeddingAnswer():
            row = answer.embeddings[index]
            numbers = " ".join(f"{value:.4f}" for value in row[:SHOWN_NUMBERS])
            lines = [f"[{numbers} ...] ({len(row)} numbers)"]
        case ClassAnswer():
            lines = _classes(answer, index)
        case LabelAnswer():
            lines = _labels(answer, index)
        case ValueAnswer():
            lines = [f"{item.value:7.4f}  {item.name}" for item in answer.values[index]]
        case SpanAnswer():
            lines = [
                f"{item.score:7.4f}  {item.label}  {one_line(item.text)}  ({item.start}-{item.end})"
                for item in answer.spans[index]
            ] or ["nothing found"]
    return "\n".join([f"{number}  {_shorten(text)}", *(f"   {line}" for line in lines)])


def _classes(answer: ClassAnswer, index: int) -> list[str]:
    """The best classes; of a pack that can reject a text the best one alone, or the rejection."""
    best, *_ = row = answer.classes[index]
    if not answer.accepted[index]:
        return [f"{answer.rejection} ({_guess(best, answer.threshold)})"]
    shown = SHOWN_LABELS if answer.rejection is None else 1
    return [f"{item.score:7.4f}  {item.name}" for item in row[:shown]]


def _labels(answer: LabelAnswer, index: int) -> list[str]:
    """The labels that hold, or the one that comes nearest."""
    held = answer.labels[index]
    if not held:
        best = answer.classes[index][0]
        return [f"no label ({_guess(best, answer.threshold)})"]
    return [f"{item.score:7.4f}  {item.name}" for item in held]


def _guess(best: Label, threshold: float) -> str:
    """Why a text is out of scope; with enough digits to show that the score is too low."""
    digits = next((n for n in (2, 4) if f"{best.score:.{n}f}" != f"{threshold:.{n}f}"), 6)
    return f"best guess {best.name} {best.score:.{digits}f}, below {threshold:.{digits}f}"


def _shorten(text: Text) -> str:
    joined = text if isinstance(text, str) else " | ".join(text)
    joined = one_line(" ".join(joined.split()))
    if len(joined) <= SHOWN_CHARACTERS:
        return joined
    return joined[: SHOWN_CHARACTERS - 3] + "..."


def similarities(embeddings: Float32Array) -> str:
    """Cosines of every two texts, as a table."""
    size = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.maximum(size, 1e-12)
    cosines = unit @ unit.T
    names = [str(number + 1) for number in range(len(embeddings))]
    rows = [
        [name, *(f"{value:.3f}" for value in row)] for name, row in zip(names, cosines, strict=True)
    ]
    from sti.report.tables import aligned  # one text needs no table

    return aligned(["cosine", *names], rows)
