"""Which staircase is taken: the best in time, and no going back and forth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sti.device.lanes import PIPELINED, SEQUENTIAL
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.check import check_plan
from sti.planning.choice import SPARE, Choice, Terms, choose, fastest, plan_of, steps_of
from sti.planning.extra_time import Extra
from sti.planning.plan import PlanRequest, Target
from sti.planning.prediction import predict
from sti.planning.pricing import PriceList, Prices
from sti.planning.staircase_making import make_staircases
from sti.planning.variants import variants_of
from tests.support.paths import INTENTS
from tests.support.staircases import KINDS, PACK
from tests.support.synthetic import make_profile

QUALITY = Quality("accuracy", 1000, 0.01, (0.0, 1.0), (0.9, 0.8))
"""A loss of 0.01 more is not noticed."""


def prices(*rows: tuple[float, float, float, int], quality: Quality | None = QUALITY) -> Prices:
    """Sequential and pipelined seconds, loss and bytes of each staircase."""
    table = np.array(rows, float)
    return Prices(
        threads=(SEQUENTIAL, PIPELINED),
        total_s=table[:, :2].T.copy(),
        loss=table[:, 2],
        read_bytes=table[:, 3].astype(np.int64),
        quality=quality,
    )


SOME = prices((1.0, 2.0, 0.5, 100), (3.0, 2.0, 0.2, 200), (6.0, 4.0, 0.0, 400))


def terms(latency_s: float | None, most_loss: float = np.inf) -> Terms:
    return Terms(latency_s, {}, {}, most_loss)


def chosen(found: Choice | None) -> tuple[int, str]:
    assert found is not None
    return found.staircase, found.threads.name


@pytest.mark.parametrize(
    ("latency_s", "expected"),
    [
        (1.0, (0, "sequential")),
        (1.9, (0, "sequential")),
        (2.0, (1, "pipelined")),
        (4.0, (2, "pipelined")),
        (None, (2, "pipelined")),
    ],
)
def test_the_least_loss_in_time_is_taken_with_its_fastest_threads(
    latency_s: float | None, expected: tuple[int, str]
) -> None:
    assert chosen(choose(SOME, terms(latency_s))) == expected


def test_nothing_is_taken_where_nothing_good_enough_is_in_time() -> None:
    assert choose(SOME, terms(0.9)) is None
    assert choose(SOME, terms(1.5, most_loss=0.3)) is None
    assert choose(SOME, terms(None, most_loss=-1.0)) is None
    assert fastest(SOME, terms(None, most_loss=-1.0)) is None


def test_extra_seconds_and_spreads_of_threads_count() -> None:
    slow = Terms(4.0, {"pipelined": Extra(2.0)}, {"pipelined": 1.5}, np.inf)
    found = choose(SOME, slow)
    assert found is not None and chosen(found) == (1, "sequential")
    assert (found.typical_s, found.promised_s) == (3.0, 3.0)
    late = choose(
        SOME,
        Terms(12.0, {"pipelined": Extra(2.0), "sequential": Extra(9.0)}, {"pipelined": 1.5}, 1.0),
    )
    assert late is not None and (late.typical_s, late.promised_s) == (6.0, 9.0)


def test_fewer_bytes_are_taken_where_nobody_notices() -> None:
    found = prices((1.0, 1.0, 0.509, 50), (1.0, 1.0, 0.5, 100), (0.5, 0.5, 0.52, 10))
    assert chosen(choose(found, terms(2.0)))[0] == 0
    assert chosen(choose(found._replace(quality=None), terms(2.0)))[0] == 1


def test_without_a_latency_everything_is_read() -> None:
    found = prices((1.0, 1.0, 0.0, 50), (2.0, 2.0, 0.0, 100), (0.5, 0.5, 0.001, 500))
    assert chosen(choose(found, terms(None)))[0] == 1


def test_the_fastest_is_what_is_promised_soonest() -> None:
    assert chosen(fastest(SOME, terms(None))) == (0, "sequential")
    assert chosen(fastest(SOME, terms(None, most_loss=0.4))) == (1, "pipelined")
    slow = Terms(None, {"sequential": Extra(own_s=3.0)}, {}, np.inf)
    assert chosen(fastest(SOME, slow)) == (0, "pipelined")


def test_what_was_chosen_stays_until_there_is_time_to_spare() -> None:
    kept = choose(SOME, terms(3.0))
    assert kept is not None and kept.staircase == 1
    just = 4.0 / (1.0 - 0.5 * SPARE)
    assert chosen(choose(SOME, terms(just), kept))[0] == 1
    assert chosen(choose(SOME, terms(just)))[0] == 2
    assert chosen(choose(SOME, terms(4.0 / (1.0 - 2.0 * SPARE)), kept))[0] == 2


def test_what_was_chosen_stays_where_nobody_notices_a_difference() -> None:
    found = prices((1.0, 1.0, 0.51, 50), (1.0, 1.0, 0.505, 100))
    kept = choose(found, terms(2.0))._replace(staircase=0)  # type: ignore[union-attr]
    assert chosen(choose(found, terms(2.0), kept))[0] == 0
    better = prices((1.0, 1.0, 0.51, 50), (1.0, 1.0, 0.45, 100))
    assert chosen(choose(better, terms(2.0), kept))[0] == 1


def test_what_was_chosen_goes_when_it_is_late_or_no_longer_allowed() -> None:
    kept = choose(SOME, terms(3.0))
    assert chosen(choose(SOME, terms(1.5), kept))[0] == 0
    assert chosen(choose(SOME, terms(4.0, most_loss=0.1), kept))[0] == 2
    assert choose(SOME, terms(0.5), kept) is None


def test_threads_stay_while_they_are_in_time() -> None:
    kept = Choice(1, SEQUENTIAL, 0.2, 3.0, 3.0, 200)
    assert chosen(choose(SOME, terms(3.5), kept)) == (1, "sequential")
    assert chosen(choose(SOME, terms(2.5), kept)) == (1, "pipelined")


@pytest.mark.parametrize("narrow", [None, 0.6])
@pytest.mark.parametrize("preload_bytes", [0, 1_000_000])
def test_the_plan_of_a_choice_is_one_like_any_other(
    narrow: float | None, preload_bytes: int
) -> None:
    with PackReader.open(INTENTS) as reader:
        manifest = reader.manifest
    staircases, profile = make_staircases(manifest), make_profile(kinds=KINDS, narrow=narrow)
    workload = Workload(1, 64)
    found = PriceList(manifest, staircases).price(profile, workload, preload_bytes)
    for latency_s in (None, 0.003, 0.006, 0.012):
        choice = choose(found, terms(latency_s))
        assert choice is not None
        request = PlanRequest(manifest, PACK, workload, Target(latency_s, preload_bytes))
        steps = steps_of(
            manifest,
            staircases,
            choice.staircase,
            preload_bytes,
            variants_of(manifest, profile),
        )
        plan = plan_of(request, profile, choice, steps)
        check_plan(plan, manifest, PACK, where="plan")
        predicted, again = plan.predicted, predict(manifest, profile, plan)
        assert predicted is not None
        assert predicted.total_s == pytest.approx(choice.typical_s)
        assert predicted.loss == pytest.approx(again.loss)
        assert replace(again, loss=predicted.loss, quality=predicted.quality) == predicted
        held = sum(step.preload_bytes for step in plan.steps)
        assert predicted.bytes_read + held == choice.read_bytes
        if latency_s is None:
            assert all(set(step.counts) == {12} for step in plan.steps)
