"""Plans with the conditions they come from, also for targets that an engine does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

import sti
from sti.engine.targets import TargetSpec
from sti.errors import ClosedError, InfeasibleError, InputError, PlanError
from sti.model.workload import Workload
from sti.planning.extra_time import Extra
from sti.planning.plan import Plan
from tests.support.packs import PROFILE, TEXTS, tiny_pack
from tests.support.paths import INTENTS

TARGETS = (
    TargetSpec(),
    TargetSpec(latency="3ms"),
    TargetSpec(latency="4ms", preload="20KB", quantile="90%"),
    TargetSpec(preload="5KB"),
    TargetSpec(fidelity=3),
    TargetSpec(latency="1s", fidelity=6),
)


def open_engine(target: TargetSpec, pack: Path | None = None) -> sti.Engine:
    return sti.Engine.open(pack or tiny_pack("classification"), target, profile=PROFILE, threads=1)


@pytest.mark.parametrize("task", ["classification", "embedding"])
@pytest.mark.parametrize("own", TARGETS[:4])
def test_another_target_is_planned_for_as_by_an_engine_that_has_it(
    task: str, own: TargetSpec
) -> None:
    pack = tiny_pack("embedding" if task == "embedding" else "classification")
    with open_engine(own, pack) as engine:
        before = engine.plan_for(tokens=8)
        for target in TARGETS:
            found = engine.planned(tokens=8, target=target).plan
            with open_engine(target, pack) as other:
                expected = other.planned(tokens=8).plan
            assert found == expected
        assert engine.target == own
        assert engine.plan_for(tokens=8) == before
        assert len(engine.run([TEXTS[0]]).texts) == 1


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("tokens", [5, 40])
def test_a_plan_follows_from_its_conditions(target: TargetSpec, tokens: int) -> None:
    with open_engine(target) as engine:
        plan, shown, decided, _ = engine.planned(tokens=tokens, batch=2)
        assert (plan.steps, plan.threads) == (
            engine.plan_for(tokens=tokens, batch=2).steps,
            engine.plan_for(tokens=tokens, batch=2).threads,
        )
        assert plan.predicted is not None
        run = shown.run(engine.manifest, plan)
        assert plan.workload == shown.workload
        assert plan.predicted.total_s == pytest.approx(shown.typical_s(run))
        assert shown.predict(engine.manifest, plan) == plan.predicted
        assert decided == shown
        if plan.target.latency_s is not None:
            assert decided.promised_s(run) <= plan.target.latency_s


def test_one_plan_for_all_lengths_is_decided_for_one() -> None:
    with open_engine(TargetSpec(latency="4ms"), tiny_pack("embedding")) as engine:
        plan, shown, decided, _ = engine.planned(tokens=8)
        most = engine.max_tokens
    assert (shown.workload, decided.workload) == (Workload(1, 8), Workload(1, most))
    assert plan.predicted is not None
    assert decided.promised_s(decided.run(engine.manifest, plan)) <= 0.004


def test_what_runs_showed_is_part_of_the_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sti.engine.speeds.Speeds.extra", lambda *_: Extra(0.5))
    monkeypatch.setattr("sti.engine.speeds.Speeds.spread", lambda *_: 2.0)
    with open_engine(TargetSpec()) as engine:
        plan, shown, _, _ = engine.planned(tokens=8)
    run = shown.run(engine.manifest, plan)
    assert shown.typical_s(run) == pytest.approx(run.total_s + 0.5)
    assert shown.promised_s(run) == pytest.approx(2.0 * (run.total_s + 0.5))
    assert plan.predicted is not None
    assert plan.predicted.total_s == pytest.approx(run.total_s + 0.5)


def test_a_pinned_plan_is_predicted_for_its_own_workload(tmp_path: Path) -> None:
    with open_engine(TargetSpec(latency="4ms")) as engine:
        given = engine.plan_for(tokens=16)
    bare = Plan.from_json({**given.to_json(), "predicted": None}, where="test")
    with open_engine(TargetSpec(plan=bare)) as engine:
        plan, shown, _, _ = engine.planned(tokens=40, batch=4)
    assert plan.steps == given.steps
    assert shown.workload == plan.workload == given.workload
    assert plan.predicted is not None
    assert given.predicted is not None
    assert plan.predicted.total_s == pytest.approx(given.predicted.total_s)


def test_a_target_that_is_refused_leaves_everything_as_it_was() -> None:
    with open_engine(TargetSpec(latency="1s")) as engine:
        before = engine.planned(tokens=8)
        for target, error in (
            (TargetSpec(latency="1us"), InfeasibleError),
            (TargetSpec(floor="90%"), InputError),
            (TargetSpec(fidelity=5), InputError),
            (TargetSpec(plan=Path("none.json")), PlanError),
        ):
            with pytest.raises(error):
                engine.planned(tokens=8, target=target)
        assert engine.planned(tokens=8) == before
        for tokens, batch in ((1, 1), (8, 0)):
            with pytest.raises(InputError, match="a workload has at least"):
                engine.planned(tokens=tokens, batch=batch)
    with pytest.raises(ClosedError):
        engine.planned(tokens=8)


def test_another_target_is_refused_without_measuring_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is compared has to hold on the same machine; the engine's own target is measured for."""
    measured = []

    def measure_again(*_: object, **__: object) -> object:
        measured.append(1)
        return profile

    monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
    monkeypatch.setattr("sti.engine.machine.measure_again", measure_again)
    with sti.Engine.open(INTENTS, latency="10s", threads=1) as engine:
        profile = engine.profile
        with pytest.raises(InfeasibleError):
            engine.planned(tokens=8, target=TargetSpec(latency="1us"))
        assert not measured
        with pytest.raises(InfeasibleError):
            engine.set_target(latency="1us")
        assert len(measured) == 1
