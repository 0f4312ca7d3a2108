"""From a head's output to answers: embeddings, classes, values of a regression, labelled spans.

In: the head's output, the texts and their tokens; if the pack can reject texts, the plan (its
expected loss determines the threshold). Out: one answer of the pack's task, as frozen data that
gives its own JSON. Knows nothing of files, timing or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from sti.arrays import Float32Array
from sti.engine.inputs import Batch
from sti.errors import AnswerError
from sti.model.manifest import MULTI_LABEL, SIGMOID, Manifest
from sti.planning.expected_loss import expected_loss
from sti.planning.plan import Plan
from sti.text.encoding import Encoding

DEFAULT_THRESHOLD = 0.5
"""The least score of a label that holds, where none is asked for."""


class Label(NamedTuple):
    """A class and its probability, which is calibrated where the pack has a ``rejection``."""

    name: str
    score: float


class Value(NamedTuple):
    """One output of a regression: its name in the pack and the number predicted."""

    name: str
    value: float


class TextSpan(NamedTuple):
    """A labelled stretch of the text, ``text[start:end]``; ``score`` is its least token's."""

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EmbeddingAnswer:
    """What an embedding pack answers."""

    name: ClassVar[str] = "embeddings"
    embeddings: Float32Array
    """``[n, d]``, one row per text; the caller's to keep and change."""

    def __repr__(self) -> str:
        return f"EmbeddingAnswer({' x '.join(map(str, self.embeddings.shape))} numbers)"

    def to_json(self) -> dict[str, Any]:
        """A JSON object: ``embeddings``, a list of numbers a text."""
        return {"embeddings": self.embeddings.tolist()}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ClassAnswer:
    """What a classifier answers.

    A pack without a ``rejection`` answers every text: all are accepted, at a threshold of 0.
    """

    name: ClassVar[str] = "classes"
    classes: tuple[tuple[Label, ...], ...]
    """For each text all classes, best first."""
    logits: Float32Array
    """``[n, classes]``, in the order of the pack's labels; the caller's to keep and change."""
    accepted: tuple[bool, ...]
    """For each text, whether it is in scope: its best class scores at least ``threshold``."""
    threshold: float
    """The least score in scope under the plan as used."""
    rejection: str | None
    """What a text out of scope is called; None for packs that answer every text."""

    def __repr__(self) -> str:
        return f"ClassAnswer({' x '.join(map(str, self.logits.shape))} classes)"

    def decisions(self) -> tuple[tuple[Label, ...], ...]:
        """For each text its classes, with the name of the rejection in front if it is rejected.

        The score in front is 1 minus that of the best class.
        """
        return tuple(
            row if inside else (Label(self.rejection or "", 1.0 - row[0].score), *row)
            for row, inside in zip(self.classes, self.accepted, strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object: ``logits`` and ``classes``.

        ``accepted`` and ``threshold`` are there for packs that can reject a text.
        """
        classes = [[item._asdict() for item in row] for row in self.classes]
        found = {"logits": self.logits.tolist(), "classes": classes}
        if self.rejection is None:
            return found
        return found | {"accepted": list(self.accepted), "threshold": self.threshold}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LabelAnswer:
    """What a classifier answers whose labels each hold or not, whatever the others do."""

    name: ClassVar[str] = "labels"
    classes: tuple[tuple[Label, ...], ...]
    """For each text all labels by falling score, which is a probability of its own."""
    logits: Float32Array
    """``[n, labels]``, in the order of the pack's labels; the caller's to keep and change."""
    threshold: float
    """The least score of a label that holds."""

    def __repr__(self) -> str:
        return f"LabelAnswer({' x '.join(map(str, self.logits.shape))} labels)"

    @property
    def labels(self) -> tuple[tuple[Label, ...], ...]:
        """For each text the labels that hold, by falling score; it may be none."""
        return tuple(
            tuple(item for item in row if item.score >= self.threshold) for row in self.classes
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object: ``logits``, all ``classes``, the ``labels`` that hold, ``threshold``."""
        classes = [[item._asdict() for item in row] for row in self.classes]
        labels = [[item.name for item in row] for row in self.labels]
        found = {"logits": self.logits.tolist(), "classes": classes, "labels": labels}
        return found | {"threshold": self.threshold}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ValueAnswer:
    """What a regression answers."""

    name: ClassVar[str] = "values"
    values: tuple[tuple[Value, ...], ...]
    """For each text its predicted values, in the order of the pack's labels."""
    logits: Float32Array
    """``[n, outputs]``: the same numbers, before the sigmoid that a pack may have; the caller's to
    keep and change."""

    def __repr__(self) -> str:
        return f"ValueAnswer({' x '.join(map(str, self.logits.shape))} values)"

    def to_json(self) -> dict[str, Any]:
        """A JSON object: ``logits`` and ``values``."""
        values = [[item._asdict() for item in row] for row in self.values]
        return {"logits": self.logits.tolist(), "values": values}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SpanAnswer:
    """What a tagger answers."""

    name: ClassVar[str] = "spans"
    spans: tuple[tuple[TextSpan, ...], ...]
    """For each text its labelled spans, in order."""
    token_logits: tuple[Float32Array, ...]
    """For each text ``[tokens, labels]``; the caller's to keep and change."""

    def __repr__(self) -> str:
        return f"SpanAnswer({sum(map(len, self.spans))} spans in {len(self.spans)} texts)"

    def to_json(self) -> dict[str, Any]:
        """A JSON object: ``token_logits`` (texts, tokens, labels) and ``spans``."""
        spans = [[item._asdict() for item in row] for row in self.spans]
        return {"token_logits": [rows.tolist() for rows in self.token_logits], "spans": spans}


Answer = EmbeddingAnswer | ClassAnswer | LabelAnswer | ValueAnswer | SpanAnswer


def make_answer(
    manifest: Manifest, batch: Batch, outputs: Sequence[Float32Array], plan: Plan
) -> Answer:
    """Put a run's outputs, one array per text, into the form of the pack's task.

    Raises:
        AnswerError: a number among them is not finite; names the pack, the plan and the text.
    """
    if manifest.task == "tagging":
        return _spans(manifest, batch, outputs, plan)
    logits = np.stack(outputs)
    _check_finite(logits, manifest, batch, plan)
    if manifest.task == "embedding":
        return EmbeddingAnswer(logits)
    if manifest.task == "regression":
        found = sigmoid(logits) if manifest.activation == SIGMOID else logits
        return ValueAnswer(regression_values(found, manifest.labels), logits)
    if manifest.task == MULTI_LABEL:
        scores = sigmoid(logits)
        return LabelAnswer(_sorted_labels(scores, manifest.labels), logits, DEFAULT_THRESHOLD)
    rejection = manifest.rejection
    if rejection is None:
        classes = class_labels(logits, manifest.labels)
        return ClassAnswer(classes, logits, (True,) * len(classes), 0.0, None)
    scaled = logits / rejection.temperature
    _check_finite(scaled, manifest, batch, plan)
    classes = class_labels(scaled, manifest.labels)
    threshold = rejection.threshold(expected_loss(manifest, plan))
    accepted = tuple(row[0].score >= threshold for row in classes)
    return ClassAnswer(classes, logits, accepted, threshold, rejection.label)


def _check_finite(
    rows: Float32Array | Sequence[Float32Array], manifest: Manifest, batch: Batch, plan: Plan
) -> None:
    """Refuse outputs, an array a text, of which a number is infinite or none at all."""
    if isinstance(rows, np.ndarray) and np.isfinite(rows).all():
        return
    for number, (row, text) in enumerate(zip(rows, batch.texts, strict=True), 1):
        bad = int(row.size - np.isfinite(row).sum())
        if bad:
            raise AnswerError(
                f"pack {manifest.name!r}: text {number} of the run, {text!r:.60}: {bad} of "
                f"{row.size} numbers of its answer are not finite, with a plan of {plan.depth} "
                f"layers and {plan.width} slices; the weights or graphs of the pack are wrong: "
                "check it (`sti-shard verify`), fetch it again, or build it anew"
            )


def _spans(
    manifest: Manifest, batch: Batch, outputs: Sequence[Float32Array], plan: Plan
) -> SpanAnswer:
    rows = tuple(row[: len(item.ids)] for row, item in zip(outputs, batch.encodings, strict=True))
    _check_finite(rows, manifest, batch, plan)
    spans = tuple(
        text_spans(text if isinstance(text, str) else text[0], item, row, manifest.labels)
        for text, item, row in zip(batch.texts, batch.encodings, rows, strict=True)
    )
    return SpanAnswer(spans, rows)


def softmax(logits: Float32Array) -> Float32Array:
    """Probabilities along the last axis; a new array."""
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float32)


def sigmoid(logits: Float32Array) -> Float32Array:
    """Probability of each number on its own; a new array. The same bits wherever a number is."""
    with np.errstate(over="ignore"):  # of which the answer is 0, as it should be
        found = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return np.asarray(found, dtype=np.float32)


def class_labels(logits: Float32Array, names: Sequence[str]) -> tuple[tuple[Label, ...], ...]:
    """For each row of ``[n, classes]``, its labels by falling probability."""
    return _sorted_labels(softmax(logits), names)


def _sorted_labels(scores: Float32Array, names: Sequence[str]) -> tuple[tuple[Label, ...], ...]:
    """For each row, its labels by falling score."""
    rows = []
    for row in scores:
        order = np.argsort(-row, kind="stable")
        rows.append(tuple(Label(names[i], float(row[i])) for i in order))
    return tuple(rows)


def regression_values(logits: Float32Array, names: Sequence[str]) -> tuple[tuple[Value, ...], ...]:
    """For each row of ``[n, outputs]``, the predicted values under their names."""
    return tuple(
        tuple(Value(name, float(value)) for name, value in zip(names, row, strict=True))
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
