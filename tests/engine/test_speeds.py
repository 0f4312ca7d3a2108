"""What runs teach of a machine: used at once, kept for later processes, but not what is passing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import sti
from sti.calibration.cache import Cache
from sti.device.lanes import COMPUTE, DECODE, STORAGE
from sti.engine.speeds import Basis, Speeds
from sti.planning.downgrade import Downgrade
from sti.planning.span import Span
from tests.support.packs import PROFILE, TEXTS, tiny_pack

LANES_S = {STORAGE: 0.004, DECODE: 0.004, COMPUTE: 0.012}


@pytest.fixture(scope="module")
def some() -> sti.Result:
    with sti.Engine.open(
        tiny_pack("classification"), latency="1000s", threads=1, profile=PROFILE
    ) as engine:
        return engine.run(TEXTS)


def speeds(directory: Path | None, pack: str = "pack") -> Speeds:
    return Speeds(PROFILE, pack, None if directory is None else Cache(directory))


def run(
    known: Speeds,
    some: sti.Result,
    slower: float,
    *,
    waited: float = 0.0,
    downgrades: tuple[Downgrade, ...] = (),
    read: float = 1.0,
) -> None:
    """Learn from a run whose lanes took so many times longer than the profile says."""
    lanes = {lane: (Span(0.0, seconds * slower, "0 ffn 0"),) for lane, seconds in LANES_S.items()}
    now = {lane: seconds * known.lanes[lane] for lane, seconds in LANES_S.items()}
    name = some.plan.threads.name
    extra, price_s = known.extra(name, some.plan.workload), sum(now.values())
    predicted = some.plan.predicted
    assert predicted is not None
    total_s = extra.total_s(price_s)
    plan = replace(some.plan, predicted=replace(predicted, total_s=total_s, bytes_read=1000))
    result = replace(
        some,
        plan=plan,
        bytes_read=round(1000 * read),
        timing=some.timing._replace(lanes=lanes),
        trace=replace(
            some.trace, waits_s={"compute": waited * some.trace.end_s}, downgrades=downgrades
        ),
    )
    run_s = sum(LANES_S.values()) * slower
    known.learn(plan, Basis(known.lanes, now, price_s, extra, None, 0.0), result, run_s, held=True)
    assert known.now is known.now  # predictions are made anew only where something changed


def test_a_slower_machine_is_a_slower_profile(some: sti.Result) -> None:
    known = speeds(None)
    assert known.now == PROFILE
    for _ in range(5):
        run(known, some, 3.0)
    assert known.lanes[COMPUTE] == pytest.approx(3.0, rel=0.05)
    storage = known.now.storage
    assert storage.bytes_per_s == pytest.approx(PROFILE.storage.bytes_per_s / 3.0, rel=0.05)


def test_what_was_learned_is_there_in_the_next_process(some: sti.Result, tmp_path: Path) -> None:
    known = speeds(tmp_path)
    for _ in range(5):
        run(known, some, 3.0)
    known.save()
    assert speeds(tmp_path).lanes == pytest.approx(known.corrections.lanes)
    assert speeds(tmp_path, "another pack").lanes[COMPUTE] == 1.0
    other = Speeds(replace(PROFILE, tokenize_s=1.0), "pack", Cache(tmp_path))
    assert other.lanes[COMPUTE] == 1.0  # measured anew: what was learned of it before is void


def test_what_was_learned_while_others_kept_it_waiting_is_not_kept(
    some: sti.Result, tmp_path: Path
) -> None:
    known = speeds(tmp_path)
    for _ in range(10):
        run(known, some, 3.0, waited=0.5)
    assert known.lanes[COMPUTE] == pytest.approx(3.0, rel=0.05)
    known.save()
    assert speeds(tmp_path).lanes[COMPUTE] == 1.0


def test_a_damaged_file_is_learned_anew(some: sti.Result, tmp_path: Path) -> None:
    known = speeds(tmp_path)
    run(known, some, 1.2)
    known.save()
    (path,) = tmp_path.glob("corrections-*.json")
    path.write_text('{"value": {"corrections": 1, "lanes": {"storage": 1e99}}}', encoding="utf-8")
    assert speeds(tmp_path).lanes[COMPUTE] == 1.0
    path.write_text("{", encoding="utf-8")
    assert speeds(tmp_path).lanes[COMPUTE] == 1.0


def test_nothing_is_written_where_nothing_was_learned(tmp_path: Path) -> None:
    speeds(tmp_path).save()
    assert not list(tmp_path.iterdir())


def test_a_run_that_left_planes_out_teaches_how_fast_it_read(some: sti.Result) -> None:
    left_out = (Downgrade(0, "ffn", 0, 4, None),)
    known = speeds(None)
    for _ in range(4):
        run(known, some, 2.0, downgrades=left_out, read=0.5)
    assert known.lanes[STORAGE] == pytest.approx(4.0, rel=0.1)
    assert known.lanes[DECODE] == 1.0
    assert known.extra(some.plan.threads.name, some.plan.workload)[:2] == (0.0, 0.0)
