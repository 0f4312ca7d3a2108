"""Texts out of scope: decided by a calibrated score against the threshold of the plan's loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sti
from sti.cli.main import main
from sti.device.lanes import PIPELINED
from sti.engine.answers import ClassAnswer, Label
from sti.engine.inputs import Batch
from sti.engine.results import make_result
from sti.model.manifest import Manifest
from sti.model.quality import Quality, Rejection
from sti.model.workload import Workload
from sti.pipeline.runner import Outcome
from sti.pipeline.trace import Trace
from sti.planning.expected_loss import expected_loss
from sti.planning.plan import PlanRequest
from sti.planning.uniform import uniform_plan
from tests.support.edited_packs import edited
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.synthetic import make_manifest, make_profile

NAMES = ("red", "green", "blue")
OUTSIDE = "out of scope"


def rejection(threshold: float, *, temperature: float = 1.0) -> Rejection:
    return Rejection(OUTSIDE, temperature, 0.95, (0.0,), (threshold,))


def write(path: Path, found: Rejection) -> Path:
    return edited(tiny_pack("classification"), path, lambda item: item._replace(rejection=found))


def opened(path: Path) -> sti.Engine:
    return sti.Engine.open(path, fidelity=8, threads=1, profile=PROFILE)


def best_scores() -> list[float]:
    """The best score of each of ``TEXTS`` at 8 bits and temperature 1."""
    with opened(tiny_pack("classification")) as engine:
        return [row[0].score for row in engine.classify(TEXTS)]


@pytest.fixture
def halving(tmp_path: Path) -> tuple[Path, list[bool]]:
    """A pack that accepts some of ``TEXTS`` at 8 bits and not the others, and which."""
    scores = best_scores()
    ordered = sorted(scores)
    threshold = (ordered[1] + ordered[2]) / 2
    inside = [score >= threshold for score in scores]
    assert any(inside) and not all(inside)
    return write(tmp_path / "halving.sti.safetensors", rejection(threshold)), inside


def classifier(found: Rejection | None) -> Manifest:
    manifest = make_manifest(Random(0))
    return manifest._replace(task="classification", labels=NAMES, rejection=found)


def answered(manifest: Manifest, logits: Any, *, loss: float = 0.0) -> sti.Result:
    """The result of a run whose head gave ``logits`` under a plan of this expected loss."""
    plan = uniform_plan(
        PlanRequest(manifest, "pack", Workload(1, 8)), bits=8, profile=make_profile()
    )
    assert plan.predicted is not None
    plan = replace(plan, predicted=replace(plan.predicted, loss=loss))
    rows = tuple(np.asarray(logits, dtype=np.float32))
    encoding: Any = SimpleNamespace(ids=[1, 2, 3], truncated=False)
    batch = Batch(["a text"] * len(rows), [encoding] * len(rows))
    return make_result(manifest, batch, plan, Outcome(rows, 0, Trace({}, PIPELINED)), total_s=0.0)


logits = st.lists(
    st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3), min_size=1, max_size=5
)


@given(logits, st.floats(0.05, 20), st.floats(0, 1))
def test_scores_are_probabilities_at_the_temperature_and_decide(
    rows: list[list[float]], temperature: float, threshold: float
) -> None:
    result = answered(classifier(rejection(threshold, temperature=temperature)), rows)
    assert result.threshold == threshold
    assert result.accepted == tuple(row[0].score >= threshold for row in result.classes)
    assert np.array_equal(np.asarray(result.logits), np.asarray(rows, dtype=np.float32))
    for row, given_row in zip(result.classes, rows, strict=True):
        scaled = np.asarray(given_row) / temperature
        raised = np.exp(scaled - scaled.max())
        expected = dict(zip(NAMES, raised / raised.sum(), strict=True))
        assert {item.name: item.score for item in row} == pytest.approx(expected, abs=1e-5)
        assert [item.score for item in row] == sorted((i.score for i in row), reverse=True)


def test_a_score_at_the_threshold_is_in_scope_and_one_below_is_not() -> None:
    score = answered(classifier(None), [[0.0, 1.0, 0.0]]).classes[0][0].score
    above = float(np.nextafter(score, 1.0))
    assert answered(classifier(rejection(score)), [[0.0, 1.0, 0.0]]).accepted == (True,)
    assert answered(classifier(rejection(above)), [[0.0, 1.0, 0.0]]).accepted == (False,)


def test_packs_without_rejection_accept_every_text_and_say_nothing_of_it_in_json() -> None:
    result = answered(classifier(None), [[0.0, 0.0, 0.0]])
    assert result.accepted == (True,) and result.threshold == 0.0
    assert result.decisions == result.classes
    assert not {"accepted", "threshold"} & set(result.to_json())


@pytest.mark.parametrize(("loss", "threshold"), [(0.0, 0.9), (1.0, 0.7), (2.0, 0.5), (9.0, 0.5)])
def test_the_threshold_follows_the_expected_loss_of_the_plan(loss: float, threshold: float) -> None:
    sloped = Rejection(OUTSIDE, 1.0, 0.95, (0.0, 2.0), (0.9, 0.5))
    result = answered(classifier(sloped), [[0.0, 3.0, 0.0], [0.0, 1.5, 0.0]], loss=loss)
    assert result.threshold == pytest.approx(threshold)
    scores = [row[0].score for row in result.classes]
    assert scores == pytest.approx([0.909, 0.691], abs=1e-3)
    assert result.accepted == tuple(score >= threshold for score in scores)


def test_json_carries_the_decisions_beside_all_classes() -> None:
    found = json.loads(
        json.dumps(answered(classifier(rejection(0.6)), [[0, 9, 0], [0, 0, 0]]).to_json())
    )
    assert found["accepted"] == [True, False]
    assert found["threshold"] == 0.6
    assert [len(row) for row in found["classes"]] == [3, 3]


def test_what_is_rejected_gets_the_name_in_front_and_keeps_its_classes() -> None:
    rows = ((Label("a", 0.75), Label("b", 0.25)), (Label("b", 0.5), Label("a", 0.5)))
    logits = np.zeros((2, 2), dtype=np.float32)
    answer = ClassAnswer(rows, logits, (True, False), 0.6, "none")
    assert answer.decisions() == (rows[0], (Label("none", 0.5), *rows[1]))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_plan_without_prediction_has_the_same_expected_loss(bits: int) -> None:
    with opened(tiny_pack("classification")) as engine:
        manifest, workload = engine.manifest, Workload(1, 8)
        bare = uniform_plan(PlanRequest(manifest, "pack", workload), bits=bits)
        predicted = uniform_plan(
            PlanRequest(manifest, "pack", workload), bits=bits, profile=PROFILE
        )
    assert bare.predicted is None and predicted.predicted is not None
    assert expected_loss(manifest, bare) == expected_loss(manifest, predicted)
    assert expected_loss(manifest, bare) == predicted.predicted.loss


# ---- engine


def test_classify_puts_out_of_scope_first_and_the_classes_behind_it(
    halving: tuple[Path, list[bool]],
) -> None:
    path, inside = halving
    with opened(path) as engine:
        result, rows = engine.run(TEXTS), engine.classify(TEXTS)
    assert result.accepted == tuple(inside)
    for row, classes, accepted in zip(rows, result.classes, inside, strict=True):
        if accepted:
            assert row == list(classes)
        else:
            assert row == [Label(OUTSIDE, 1.0 - classes[0].score), *classes]


def test_the_temperature_of_the_pack_reaches_the_scores(tmp_path: Path) -> None:
    path = write(tmp_path / "warm.sti.safetensors", rejection(0.0, temperature=2.0))
    with opened(path) as warm, opened(tiny_pack("classification")) as plain:
        halved, whole = warm.run(TEXTS), plain.run(TEXTS)
    assert halved.accepted == (True,) * len(TEXTS)
    for low, high in zip(halved.classes, whole.classes, strict=True):
        assert [item.name for item in low] == [item.name for item in high]
        odds = [np.log(row[0].score / row[-1].score) for row in (low, high)]
        assert odds[0] == pytest.approx(odds[1] / 2, rel=1e-3)


def test_lower_fidelities_are_held_to_the_threshold_of_their_loss(tmp_path: Path) -> None:
    with opened(tiny_pack("classification")) as engine:
        bare = uniform_plan(PlanRequest(engine.manifest, "pack", Workload(1, 8)), bits=2)
        low = expected_loss(engine.manifest, bare)
    assert low > 0
    sloped = Rejection(OUTSIDE, 1.0, 0.95, (0.0, low), (1.0, 0.0))
    with opened(write(tmp_path / "sloped.sti.safetensors", sloped)) as engine:
        assert engine.run(TEXTS).accepted == (False,) * len(TEXTS)
        engine.set_target(fidelity=2)
        result = engine.run(TEXTS)
    assert result.threshold == pytest.approx(0.0, abs=1e-6)
    assert result.accepted == (True,) * len(TEXTS)


# ---- sti run


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*argv: object) -> str:
        code = main([str(item) for item in argv])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return call


def test_run_prints_the_intent_or_that_there_is_none(
    halving: tuple[Path, list[bool]], printed: Callable[..., str]
) -> None:
    path, inside = halving
    found = json.loads(printed("run", path, *TEXTS, "--fidelity", 8, "--json"))
    assert found["accepted"] == inside
    lines = printed("run", path, *TEXTS, "--fidelity", 8).splitlines()
    shown = [line.strip() for line in lines[1 : 2 * len(TEXTS) : 2]]
    for line, row, accepted in zip(shown, found["classes"], inside, strict=True):
        if accepted:
            assert line == f"{row[0]['score']:.4f}  {row[0]['name']}"
        else:
            assert line.startswith(f"{OUTSIDE} (best guess {row[0]['name']} 0.6")
            score, threshold = line.rstrip(")").replace(", below", "").split()[-2:]
            assert float(score) < float(threshold)


def test_run_says_how_far_below_the_threshold_the_best_guess_is(
    tmp_path: Path, printed: Callable[..., str]
) -> None:
    path = write(tmp_path / "strict.sti.safetensors", rejection(0.9))
    out = printed("run", path, "the dog runs", "--fidelity", 8)
    (name, score) = next((row[0].name, row[0].score) for row in [best_of(path)])
    assert f"out of scope (best guess {name} {score:.2f}, below 0.90)" in out


def best_of(path: Path) -> list[Label]:
    with opened(path) as engine:
        return list(engine.run(["the dog runs"]).classes[0])


@pytest.mark.parametrize(
    ("options", "shown"),
    # With a target, fewer bytes as far as a tenth of the residual of 2 points allows.
    [(("--latency", "10s"), "95.6 %"), (("--fidelity", 8), "95.8 %"), ((), "95.8 %")],
)
def test_run_shows_the_accuracy_to_expect_of_the_plan_once(
    options: tuple[object, ...],
    shown: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
    quality = Quality("accuracy", 400, 0.02, (0.0, 1.0), (0.958, 0.5))
    path = edited(
        tiny_pack("classification"),
        tmp_path / "ranked.sti.safetensors",
        lambda item: item._replace(quality=quality),
    )
    assert main(["run", str(path), "the dog runs", *map(str, options)]) == 0
    said = capsys.readouterr().err
    assert said.splitlines()[-1].endswith(f", expected accuracy {shown}")
    assert said.count("expected accuracy") == 1
