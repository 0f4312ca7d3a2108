"""From logits to labels and spans."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import pytest

from sti.engine.answers import (
    Value,
    class_labels,
    make_answer,
    regression_values,
    softmax,
    text_spans,
)
from sti.engine.inputs import Batch
from sti.errors import AnswerError
from sti.model.workload import Workload
from sti.planning.plan import PlanRequest, Target
from sti.planning.uniform import uniform_plan
from tests.support.synthetic import make_manifest

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@dataclass(frozen=True)
class Tokens:
    """Stands in for an encoding: special tokens around words, some of several tokens."""

    word_ids: list[int]
    offsets: list[tuple[int, int]]

    @property
    def ids(self) -> list[int]:
        return [0] * len(self.word_ids)


def logits(*classes: int) -> np.ndarray:
    rows = np.full((len(classes), len(NAMES)), -4.0, dtype=np.float32)
    rows[range(len(classes)), classes] = 4.0
    return rows


def test_softmax_rows_sum_to_one_even_for_large_logits() -> None:
    found = softmax(np.array([[1000.0, 0.0], [-5.0, -5.0]], dtype=np.float32))
    assert np.allclose(found.sum(axis=1), 1.0)
    assert found[0, 0] == 1.0 and found[1, 0] == 0.5


def test_labels_come_best_first() -> None:
    ((first, second, third),) = class_labels(np.array([[0.0, 2.0, 1.0]]), ("a", "b", "c"))
    assert (first.name, second.name, third.name) == ("b", "c", "a")
    assert first.score + second.score + third.score == pytest.approx(1.0)


def test_a_regression_keeps_its_value() -> None:
    assert regression_values(np.array([[3.5]]), ("score",)) == ((Value("score", 3.5),),)


TEXT = "Ada Lovelace saw Paris, Texas"
WORDS = Tokens(
    [-1, 0, 1, 1, 2, 3, 4, 5, -1],
    [(0, 0), (0, 3), (4, 8), (8, 12), (13, 16), (17, 22), (22, 23), (24, 29), (0, 0)],
)


def test_words_of_one_entity_join_to_a_span() -> None:
    spans = text_spans(TEXT, WORDS, logits(0, 1, 2, 0, 0, 3, 0, 3, 0), NAMES)
    assert [(span.label, span.text) for span in spans] == [
        ("PER", "Ada Lovelace"),
        ("LOC", "Paris"),
        ("LOC", "Texas"),
    ]
    assert all(TEXT[span.start : span.end] == span.text for span in spans)


def test_a_new_b_starts_a_new_span_and_an_i_after_another_label_does_too() -> None:
    spans = text_spans(TEXT, WORDS, logits(0, 1, 1, 0, 4, 2, 0, 0, 0), NAMES)
    assert [(span.label, span.text) for span in spans] == [
        ("PER", "Ada"),
        ("PER", "Lovelace"),
        ("LOC", "saw"),
        ("PER", "Paris"),
    ]


def test_labels_without_prefixes_join_their_neighbours() -> None:
    names = ("O", "X")
    rows = np.array([[0, 1]] * 9, dtype=np.float32)
    (span,) = text_spans(TEXT, WORDS, rows, names)
    assert span.text == TEXT


def test_nothing_labelled_gives_no_spans() -> None:
    assert text_spans(TEXT, WORDS, logits(*[0] * 9), NAMES) == ()


@pytest.mark.parametrize("task", ["embedding", "classification", "regression", "tagging"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_answer_that_is_not_finite_is_an_error(task: str, value: float) -> None:
    manifest = make_manifest(Random(1))._replace(task=task, labels=NAMES)
    plan = uniform_plan(PlanRequest(manifest, "pack", Workload(2, 9), Target()), bits=4)
    batch = Batch(["a first text", TEXT], [WORDS, WORDS])  # type: ignore[list-item]  # stand-ins
    outputs = [np.zeros((12, len(NAMES)) if task == "tagging" else len(NAMES), np.float32)] * 2
    make_answer(manifest, batch, outputs, plan)
    outputs[1] = outputs[1].copy()
    outputs[1].reshape(-1)[3] = value
    with pytest.raises(AnswerError, match=r"'synthetic': text 2 of the run, 'Ada .* 1 of \d+ num"):
        make_answer(manifest, batch, outputs, plan)


def test_what_is_beyond_a_text_may_be_anything() -> None:
    manifest = make_manifest(Random(1))._replace(task="tagging", labels=NAMES)
    plan = uniform_plan(PlanRequest(manifest, "pack", Workload(2, 9), Target()), bits=4)
    rows = np.zeros((12, len(NAMES)), np.float32)
    rows[9:] = np.nan
    make_answer(manifest, Batch([TEXT], [WORDS]), [rows], plan)  # type: ignore[list-item]
