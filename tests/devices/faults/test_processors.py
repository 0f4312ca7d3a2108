"""Processors of two kinds: what a plan says is computed everywhere, to the same bits."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import pytest

from sti.pipeline.trace import Recorder
from sti.planning.links import FLOAT32
from sti.planning.plan import EXACT, LOCAL, NARROW, Plan
from sti.planning.stages import Stage, layers_of
from tests.devices.test_chain import encodings, plan_of, strategy_of
from tests.support.devices import CONTROLLER, devices
from tests.support.packs import tiny_pack


def varied(plan: Plan, variants: tuple[str, ...]) -> Plan:
    """Steps of these variants in turn."""
    steps = tuple(
        step._replace(variant=variants[number % len(variants)])
        for number, step in enumerate(plan.steps)
    )
    return replace(plan, steps=steps)


@pytest.mark.parametrize("variants", [(EXACT,), (NARROW,), (NARROW, EXACT)], ids=str)
@pytest.mark.parametrize(
    "saturates",
    [
        {CONTROLLER: False, "a": True, "b": False},
        {CONTROLLER: True, "a": False, "b": True},
        {CONTROLLER: True, "a": True, "b": False},
    ],
    ids=["the first worker", "the last worker", "the controller and one"],
)
def test_answers_are_those_of_the_plan_whatever_the_processors(
    saturates: dict[str, bool], variants: tuple[str, ...]
) -> None:
    with devices(tiny_pack(), ["a", "b"], saturates=saturates) as found:
        plan, texts = varied(plan_of(found.here.reader), variants), encodings(found.here.reader)
        due = found.here.runner.run(
            found.here.jobs(plan), plan, texts, mode="planned", recorder=Recorder(perf_counter())
        )
        first, second, last = layers_of(plan)
        for stages in (
            (Stage("a", first, second), Stage("b", last, last)),
            (Stage(LOCAL, first, first), Stage("b", second, second), Stage("a", last, last)),
        ):
            outcome = found.chains.run(
                strategy_of(plan, stages),
                plan,
                texts,
                recorder=Recorder(perf_counter()),
                link_type=FLOAT32,
                within_s=60.0,
            )
            assert [row.tobytes() for row in outcome.outputs] == [
                row.tobytes() for row in due.outputs
            ]
