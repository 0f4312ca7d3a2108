"""How cost grows: fits, the ideal schedule, and that the benchmark runs. Nothing here is timed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from benchmarks import growth, growth_plots
from benchmarks.growth_fit import Axis, Memory, Point, Throughput, crossovers, exponent, limit_table
from benchmarks.ideal import ideal
from sti.device.lanes import PIPELINED, LaneThreads, shared
from sti.engine.engine import Engine
from sti.model.workload import Workload
from sti.pipeline.trace import Recorder, Trace
from sti.planning.plan import Plan, PlanRequest, connect_name
from sti.planning.uniform import uniform_plan
from tests.support.packs import TEXTS, tiny_pack
from tests.support.synthetic import make_manifest

ENDS = {("compute", "tokenize"): 1.0, ("storage", "embeddings"): 2.0, ("compute", "embed"): 3.0}
ENDS |= {("compute", "head"): 4.0}
"""Seconds of what every run has beside its blocks."""
LAYERS = 4
BLOCKS = 2 * LAYERS


def point(
    x: float,
    storage: float,
    decode: float,
    compute: float,
    *,
    ratio: float = 1.0,
    threads: LaneThreads = PIPELINED,
) -> Point:
    work = {"storage": storage, "decode": decode, "compute": compute}
    best = threads.ideal_s(work)
    return Point(x, best * ratio, threads, work, best, best, ratio, bytes_read=1e6)


def axis(points: Sequence[Point], name: str = "length", unit: str = "tokens") -> Axis:
    return Axis(name, unit, tuple(points))


def planned(*, read_ahead: int = 3, threads: LaneThreads = PIPELINED) -> Plan:
    request = PlanRequest(make_manifest(Random(0), layers=LAYERS), "made up", Workload(1, 16))
    return uniform_plan(request, bits=4, read_ahead=read_ahead, threads=threads)


def sequential(plan: Plan, seconds: Mapping[str, float], *, preloaded: int = 0) -> Trace:
    """One step after the other, each block as long on a lane as the next; some are not read."""
    steps = list(ENDS.items())[:-1]
    for place, step in enumerate(plan.steps):
        name = step.name
        lanes = [lane for lane in seconds if lane != "storage" or place >= preloaded]
        steps += [((lane, name), seconds[lane]) for lane in lanes]
        steps.append((("compute", connect_name(step.layer, step.kind)), 0.0))
    steps.append((("compute", "head"), ENDS["compute", "head"]))
    recorder, now = Recorder(0.0), 0.0
    for (lane, name), taken in steps:
        recorder.add(lane, name, now, now + taken)
        now += taken
    return recorder.trace(PIPELINED)


def test_the_exponent_of_a_power_is_found_exactly() -> None:
    xs = [1.0, 2.0, 5.0, 40.0]
    assert exponent(xs, [3.0 * x**1.5 for x in xs]) == pytest.approx(1.5)
    assert exponent(xs, [7.0 / x for x in xs]) == pytest.approx(-1.0)
    assert exponent(xs, [2.0] * 4) == pytest.approx(0.0)


def test_the_exponent_is_the_least_squares_slope() -> None:
    # By hand: log2 of y is 0, 0, 3 at log2 of x 0, 1, 2.
    assert exponent([1, 2, 4], [1, 1, 8]) == pytest.approx(1.5)


@pytest.mark.parametrize("xs", [[], [3.0], [3.0, 3.0]])
def test_one_x_has_no_exponent(xs: list[float]) -> None:
    assert exponent(xs, [1.0] * len(xs)) is None


def test_a_lane_without_work_has_no_exponent() -> None:
    found = axis([point(1, 0.0, 2.0, 1.0), point(4, 1.0, 4.0, 16.0)])
    assert found.lane_exponent("storage") is None
    assert found.lane_exponent("decode") == pytest.approx(0.5)
    assert found.lane_exponent("compute") == pytest.approx(2.0)


def test_crossovers_lie_where_two_lanes_are_equal() -> None:
    # Compute grows as x, decode stays at 20: equal at 20. Storage is never the longest.
    (found,) = crossovers([point(x, 1.0, 20.0, x) for x in (8, 16, 32, 64)])
    assert (found.before, found.after) == ("decode", "compute")
    assert found.x == pytest.approx(20.0)
    assert str(found) == "decode to compute at 20"


def test_every_change_of_the_limiting_lane_is_found() -> None:
    points = [point(x, 100.0 / x, 10.0, x) for x in (1, 4, 25, 50)]
    found = [(item.before, item.after, round(item.x, 6)) for item in crossovers(points)]
    assert found == [("storage", "compute", 10.0)]
    finer = [point(x, 100.0 / x, 10.5, x) for x in (1, 4, 10, 25, 50)]
    found = [(item.before, item.after, round(item.x, 4)) for item in crossovers(finer)]
    assert found == [("storage", "decode", 9.5238), ("decode", "compute", 10.5)]


def test_without_a_change_there_is_no_crossover_and_a_lane_without_work_makes_no_trouble() -> None:
    assert not crossovers([point(x, 1.0, 2.0, 3.0) for x in (1, 2, 3)])
    (found,) = crossovers([point(1, 5.0, 0.0, 1.0), point(2, 0.0, 0.0, 1.0)])
    assert 1.0 < found.x < 2.0


def test_threads_that_share_steps_limit_together_each_with_its_part() -> None:
    # Decode and compute are 2 and x: two threads take 1 + x / 2, storage takes 10.
    points = [point(x, 10.0, 2.0, x, threads=shared(2)) for x in (4, 12, 16, 20, 40)]
    assert [item.limiting for item in points] == [*("storage",) * 3, *("compute",) * 2]
    (found,) = crossovers(points)
    assert (found.before, found.after) == ("storage", "compute")
    assert 16.0 < found.x < 20.0
    assert axis(points).lane_exponent("decode") == pytest.approx(0.0)
    mostly_decoding = point(1, 5.0, 8.0, 1.0, threads=shared(2))
    assert mostly_decoding.limiting == "storage"


def test_where_a_lane_is_at_one_of_two_points_only_the_crossover_is_their_middle() -> None:
    (found,) = crossovers([point(4, 1.0, 3.0, 2.0), point(16, 1.0, 3.0, 20.0, threads=shared(2))])
    assert (found.before, found.after) == ("decode", "compute")
    assert found.x == pytest.approx(8.0)


def test_equal_lanes_are_done_one_block_after_the_last_but_for_both_ends() -> None:
    plan = planned()
    found = ideal(plan, sequential(plan, {"storage": 9.0, "decode": 9.0, "compute": 9.0}))
    # After the tokenizer: the first block is read and decoded, all are computed, then the head.
    assert found.unlimited_s == pytest.approx(1.0 + 9.0 + 9.0 + BLOCKS * 9.0 + 4.0)
    assert found.limited_s >= found.unlimited_s


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"storage": 50.0, "decode": 1.0, "compute": 2.0}, 1.0 + BLOCKS * 50.0 + 1.0 + 2.0 + 4.0),
        ({"storage": 1.0, "decode": 50.0, "compute": 2.0}, 1.0 + 1.0 + BLOCKS * 50.0 + 2.0 + 4.0),
        ({"storage": 1.0, "decode": 2.0, "compute": 50.0}, 1.0 + 5.0 + BLOCKS * 50.0 + 4.0),
    ],
)
def test_a_dominant_lane_never_waits(seconds: dict[str, float], expected: float) -> None:
    plan = planned()
    found = ideal(plan, sequential(plan, seconds))
    assert found.limited_s == found.unlimited_s == pytest.approx(expected)


def test_what_is_preloaded_is_not_read() -> None:
    plan = planned()
    trace = sequential(plan, {"storage": 50.0, "decode": 1.0, "compute": 2.0}, preloaded=3)
    expected = 1.0 + (BLOCKS - 3) * 50.0 + 1.0 + 2.0 + 4.0
    assert ideal(plan, trace).limited_s == pytest.approx(expected)


def test_threads_that_share_compute_do_what_they_did_as_soon_as_they_can() -> None:
    """Every other step by each thread; blocks of one step each follow one another."""
    plan = planned(threads=shared(2))
    trace = sequential(plan, {"storage": 1.0, "decode": 40.0, "compute": 50.0})
    lanes = {lane: list(spans) for lane, spans in trace.lanes.items()}
    odd = {step.name for step in plan.steps[1::2]}
    odd |= {connect_name(step.layer, step.kind) for step in plan.steps[1::2]}
    for lane in ("decode", "compute"):
        lanes[f"{lane} 1"] = [span for span in lanes[lane] if span.name in odd]
        lanes[lane] = [span for span in lanes[lane] if span.name not in odd]
    found = ideal(plan, Trace({lane: tuple(spans) for lane, spans in lanes.items()}, plan.threads))
    # Decoding is beside the step before; only the first one is waited for.
    assert found.limited_s == pytest.approx(1.0 + 5.0 + 40.0 + BLOCKS * 50.0 + 4.0)


def test_the_ring_and_the_buffers_cost_what_they_make_wait() -> None:
    rng = Random(5)
    times = {(lane, place): rng.uniform(1.0, 60.0) for lane in "sdc" for place in range(BLOCKS)}
    limited = []
    for read_ahead in (1, 3, 7):
        plan = planned(read_ahead=read_ahead)
        blocks = {step.name: place for place, step in enumerate(plan.steps)}
        found = sequential(plan, dict.fromkeys(("storage", "decode", "compute"), 1.0))
        trace = Trace(
            {
                lane: tuple(
                    span._replace(end_s=span.start_s + times[lane[0], blocks[span.name]])
                    if span.name in blocks
                    else span
                    for span in spans
                )
                for lane, spans in found.lanes.items()
            },
            plan.threads,
        )
        best = ideal(plan, trace)
        assert best.unlimited_s <= best.limited_s
        limited.append(best.limited_s)
    assert limited == sorted(limited, reverse=True)
    assert limited[0] > limited[-1]


def test_the_trace_of_another_run_is_refused() -> None:
    plan = planned()
    lanes = sequential(plan, {"storage": 1.0, "decode": 1.0, "compute": 1.0}).lanes
    kept = tuple(span for span in lanes["decode"] if span.name != "2 ffn 0")
    with pytest.raises(ValueError, match="no '2 ffn 0' on the decode lane"):
        ideal(plan, Trace({**lanes, "decode": kept}, plan.threads))


def test_no_run_is_faster_than_its_ideal() -> None:
    with Engine.open(tiny_pack(), fidelity=4, preload="1KB") as engine:
        for mode in ("sequential", "planned", "planned"):
            result = engine.run(TEXTS, mode=mode)
            found = ideal(result.plan, result.trace)
            ended = result.trace.end_s
            assert 0.0 < found.unlimited_s <= found.limited_s <= ended + 1e-9


def test_limits_are_told_for_what_was_measured() -> None:
    depth = axis([point(12, 1.0, 2.0, 3.0), point(48, 4.0, 8.0, 12.0)], "depth", "layers")
    length = axis([point(8, 1.0, 2.0, 3.0), point(16, 1.0, 2.0, 3.0, ratio=1.2)])
    rows = limit_table(
        [depth, length],
        [Memory(12, 100, 1), Memory(48, 115, 1)],
        [Throughput("a", 32, single_s=0.1, batch_s=0.4)],
    ).rows
    assert [row[1] for row in rows] == pytest.approx([1.0, 1.0, 1.15, 8.0, 1.2])
    assert [row[-1] for row in rows] == ["met", "met", "SHORT", "met", "SHORT"]
    assert rows[-1][0] == "end to end / ideal schedule, worst of tokens (16)"
    assert rows[-1][2] == "<= 1.04"


def test_the_picture_is_the_same_for_the_same_axes_and_names_what_it_marks() -> None:
    axes = [axis([point(x, 0.0, 20.0, x) for x in (8, 16, 32)]), axis([point(1, 1.0, 2.0, 3.0)])]
    drawn = growth_plots.as_svg(axes)
    assert drawn == growth_plots.as_svg(axes)
    assert "decode to compute at 20 tokens" in drawn


def test_growth_measures_every_axis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
    arguments = [str(tmp_path / "work"), "--quick", "--repeats", "1", "--minilm", str(tiny_pack())]
    assert growth.main([*arguments, "--output", "json", "--plots", str(tmp_path / "plots")]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    tables: dict[str, list[dict[str, Any]]] = {t["title"]: t["rows"] for t in report["tables"]}
    axes = {
        title.removesuffix(": medians"): rows
        for title, rows in tables.items()
        if "medians" in title
    }
    assert {name: [next(iter(row.values())) for row in rows] for name, rows in axes.items()} == {
        "Depth": list(growth.QUICK.depths),
        "Width": list(growth.QUICK.widths),
        "Length": list(growth.QUICK.tokens),
        "Batch": list(growth.QUICK.batches),
        "Fidelity": list(growth.QUICK.bits),
        "Storage": list(growth.QUICK.rates[:-1]),
    }
    for rows in axes.values():
        assert all(row["end to end / ideal schedule"] >= 1.0 for row in rows)
        assert all(
            row["the same, no ring or buffer limit"]
            <= row["ideal schedule ms"]
            <= row["end to end ms"]
            for row in rows
        )
    assert axes["Width"][0]["MB read"] < axes["Width"][-1]["MB read"]
    assert axes["Depth"][0]["MB read"] < axes["Depth"][-1]["MB read"]
    read = [row["MB read"] for row in axes["Fidelity"]]
    assert read == sorted(set(read))
    fits = {row["axis"]: row for row in tables["Fits: the power of x that times grow with"]}
    assert list(fits) == ["depth", "width", "length", "batch", "fidelity", "storage"]
    (batches,) = [rows for title, rows in tables.items() if title.startswith("Batch throughput")]
    assert [row["sentences"] for row in batches] == [growth.QUICK.batches[-1]] * 2
    assert "beyond this disk, so not emulated: 1000 GB/s" in report["notes"]
    assert len(tables["Limits"]) >= 6
    assert (tmp_path / "plots" / growth.PLOT).read_text(encoding="utf-8").endswith("</svg>\n")
    assert "building" in said.err


def test_packs_that_are_there_are_used_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape, widths = growth.QUICK.shape, growth.QUICK.widths
    first = growth.make_pack(tmp_path, shape, widths)
    written = first.stat().st_mtime_ns
    assert growth.make_pack(tmp_path, shape, widths) == first
    assert first.stat().st_mtime_ns == written
    assert list(tmp_path.iterdir()) == [first]
    assert capsys.readouterr().err.count("building") == 1
    with Engine.open(first) as engine:
        sizes = [(model.depth, model.width) for model in engine.manifest.submodels]
        assert sizes == [(2, 4), (2, 2)]
