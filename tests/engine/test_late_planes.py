"""Late planes through the public interface: told, waited for on request, without a warning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import sti
from sti.device.emulated_storage import with_storage
from sti.pack.pack_reader import PackReader
from tests.pipeline.test_late_planes import LATENCY_S, SLOW, STALL_S, Stalls
from tests.support.checkpoints import Task
from tests.support.packs import PROFILE, TEXTS, tiny_pack

STALL = {3: STALL_S}


def late(task: Task = "classification", **options: Any) -> tuple[str, sti.Result]:
    """A run of a pack on storage that stalls, without a warning; and the pack's identity."""
    path = tiny_pack(task)
    named: dict[str, Any] = {"fidelity": 8, "latency": f"{LATENCY_S}s", "threads": 1} | options
    profile = with_storage(PROFILE, SLOW)
    with PackReader.open(path) as reader, warnings.catch_warnings():
        warnings.simplefilter("error")
        storage = Stalls(reader, {})
        with sti.Engine.open(path, profile=profile, storage=storage, **named) as engine:
            storage.reads, storage.stalls = 0, STALL
            result = engine.run(TEXTS[:1])
            return engine.pack_id, result


def test_late_planes_are_told_and_the_plan_as_run_gives_the_answer_again() -> None:
    _, result = late()
    assert result.met is False
    assert result.downgrades == result.left_out("late") != ()
    assert not result.left_out("damaged")
    told = result.to_json()["downgrades"]
    assert {(item["reason"], item["slice"]) for item in told} == {("late", None)}
    with sti.Engine.open(tiny_pack("classification"), plan=result.plan, adapt=False) as engine:
        again = engine.run(TEXTS[:1])
    np.testing.assert_array_equal(again.logits, result.logits)


@pytest.mark.parametrize("options", [{"adapt": False}, {"strict": True}])
def test_late_planes_are_waited_for_on_request(options: dict[str, bool]) -> None:
    _, result = late(**options)
    assert result.met is False and result.downgrades == ()
    assert all(set(step.counts) == {step.counts[0]} for step in result.plan.steps)


def test_a_pinned_plan_that_was_made_for_fewer_texts_is_run_as_it_is() -> None:
    _, result = late(adapt=False)
    profile = with_storage(PROFILE, SLOW)
    with PackReader.open(tiny_pack("classification")) as reader:
        storage = Stalls(reader, STALL)
        with sti.Engine.open(
            reader.path, plan=result.plan, threads=1, profile=profile, storage=storage
        ) as engine:
            with pytest.warns(sti.StiWarning, match="may take longer than predicted"):
                found = engine.run(["the dog runs under the table " * 6])
            assert found.met is False and found.downgrades == ()


def test_embeddings_are_waited_for_unless_they_need_not_be_comparable() -> None:
    assert late("embedding")[1].downgrades == ()
    assert late("embedding", comparable=False)[1].left_out("late")
