"""Results: one answer type for each task, properties that never give None, JSON, one-line reprs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sti
from tests.support.packs import PROFILE, TEXTS, tiny_pack

PROPERTIES = {
    "embedding": {"embeddings"},
    "classification": {"classes", "decisions", "logits", "accepted", "threshold"},
    "regression": {"values", "logits"},
    "tagging": {"spans", "token_logits"},
}
ANSWERS = {
    "embedding": (sti.EmbeddingAnswer, "embeddings"),
    "classification": (sti.ClassAnswer, "classes"),
    "regression": (sti.ValueAnswer, "values"),
    "tagging": (sti.SpanAnswer, "spans"),
}


def opened(task: Any) -> sti.Engine:
    return sti.Engine.open(tiny_pack(task), fidelity=8, threads=1, profile=PROFILE)


def run(task: str) -> sti.Result:
    with opened(task) as engine:
        return engine.run(TEXTS)


@pytest.mark.parametrize("task", PROPERTIES)
def test_a_property_of_another_task_is_refused_and_says_what_to_use(task: str) -> None:
    result = run(task)
    kind, use = ANSWERS[task]
    assert result.task == task and isinstance(result.answer, kind)
    for name in set().union(*PROPERTIES.values()):
        if name in PROPERTIES[task]:
            assert getattr(result, name) is not None
            continue
        with pytest.raises(sti.InputError, match=f"the pack is for {task}.*no `{name}`") as caught:
            getattr(result, name)
        instead = "token_logits" if (task, name) == ("tagging", "logits") else use
        assert str(caught.value).endswith(f"use `{instead}`")


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        ("embedding", {"embeddings"}),
        ("classification", {"classes", "logits"}),
        ("regression", {"values", "logits"}),
        ("tagging", {"spans", "token_logits"}),
    ],
)
def test_json_has_the_keys_of_the_task(task: str, keys: set[str]) -> None:
    found = json.loads(json.dumps(run(task).to_json()))
    assert {
        key
        for key in found
        if key in {"embeddings", "classes", "values", "spans", "logits", "token_logits"}
    } == keys
    assert not {"labels", "accepted", "threshold"} & set(found)
    for key in keys:
        assert len(found[key]) == len(TEXTS)


def test_json_names_what_stands_in_a_class_a_value_and_a_span() -> None:
    assert set(run("classification").to_json()["classes"][0][0]) == {"name", "score"}
    assert set(run("regression").to_json()["values"][0][0]) == {"name", "value"}
    span = next(row[0] for row in run("tagging").to_json()["spans"] if row)
    assert set(span) == {"label", "text", "start", "end", "score"}


@pytest.mark.parametrize("task", PROPERTIES)
def test_a_result_is_shown_in_one_short_line(task: str) -> None:
    result = run(task)
    for shown in (repr(result), repr(result.answer)):
        assert "\n" not in shown and len(shown) < 120
    assert repr(result).startswith(f"Result({task}: ") and " ms, " in repr(result)


def test_a_regression_gives_values_and_classify_names_regress() -> None:
    with opened("regression") as engine:
        found, logits = engine.regress(TEXTS), engine.run(TEXTS).logits
        assert [[item.name for item in row] for row in found] == [list(engine.labels)] * len(TEXTS)
        values = np.array([[item.value for item in row] for row in found], dtype=np.float32)
        assert (values == logits).all()
        with pytest.raises(sti.InputError, match="use `regress`"):
            engine.classify(TEXTS)


def test_regress_on_a_classifier_names_classify() -> None:
    with (
        opened("classification") as engine,
        pytest.raises(sti.InputError, match="use `classify`"),
    ):
        engine.regress(TEXTS)


PROGRAM = """
from datetime import timedelta

import sti


def main(pack: str) -> list[str]:
    told: list[str] = []
    target = sti.TargetSpec(latency=timedelta(milliseconds=30), preload="2MB")
    with sti.Engine.open(pack, target, latency="20ms", notify=told.append) as engine:
        engine.set_target(engine.target, fidelity=4)
        size: int = engine.embed(["a text"]).shape[1] + engine.dimension
        result = engine.run(["a text", ("a text", "another")])
        first: sti.Label = result.classes[0][0]
        inside: bool = result.accepted[0] and first.score >= result.threshold
        value: float = result.values[0][0].value + float(result.logits[0, 0])
        words: list[str] = [span.text for row in result.spans for span in row]
        numbers: float = float(result.embeddings[0, 0]) + float(result.token_logits[0][0, 0])
        match result.answer:
            case sti.ClassAnswer(classes=rows):
                words += [row[0].name for row in rows]
            case sti.SpanAnswer(spans=spans):
                words += [row[0].label for row in spans]
            case _:
                pass
        words += [item.name for row in engine.classify(["a"]) for item in row]
        words += [f"{item.name} {item.value}" for row in engine.regress(["a"]) for item in row]
        words += [span.label for row in engine.tag(["a"]) for span in row]
        for part in engine.stream(line for line in ("a text", "another")):
            words += [f"{text} {part.met} {part.late_s}" for text in part.texts]
        ids: list[int] = engine.tokenize(["a"])[0].ids.tolist()
        print(size, inside, value, numbers, ids, engine.labels, engine.max_tokens, engine.task)
    return words
"""


def test_a_users_program_passes_strict_type_checking(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    version = f"{sys.version_info.major}.{max(12, sys.version_info.minor)}"
    options = [
        *("--strict", "--config-file=", "--follow-imports=silent"),
        *(f"--python-version={version}", f"--cache-dir={tmp_path}"),
    ]
    program.write_text(PROGRAM, encoding="utf-8")
    out, err, code = api.run([*options, str(program)])
    assert code == 0, out + err
    program.write_text(PROGRAM.replace("result.classes[0][0]", "result.classes[0]"), "utf-8")
    out, _, code = api.run([*options, str(program)])
    assert code == 1 and "Incompatible types in assignment" in out
