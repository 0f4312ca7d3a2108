"""Growth over devices and links: where they pay, what limits, the roof. Nothing here is timed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.devices.home import Joined
from benchmarks.growth_devices_fit import (
    Point,
    Series,
    Stretch,
    fit_table,
    pays_table,
    series_table,
    stretches,
    words_of,
)
from benchmarks.growth_devices_work import RESOURCES, Fleet, Load, load_of, operations
from sti.device.lanes import COMPUTE, LINK, STORAGE
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import LOCAL, Plan, PlanRequest
from sti.planning.stages import Stage
from sti.planning.uniform import uniform_plan
from tests.support.packs import PROFILE, tiny_pack

XS = [1.0, 4.0, 16.0, 64.0]
CABLE = Joined(1000.0)


def point(x: float, measured: float, predicted: float, *, limiting: str = COMPUTE) -> Point:
    """One device takes 2 s, and 3 s by prediction; the roof is 1 s."""
    return Point(x, 2, "", 1, 10**9, 10**6, 10**6, measured, predicted, 1.0, limiting, 2.0, 3.0)


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    with PackReader.open(tiny_pack()) as reader:
        return reader.manifest


@pytest.fixture(scope="module")
def plan(manifest: Manifest) -> Plan:
    return uniform_plan(PlanRequest(manifest, "made up", Workload(1, 8)), bits=4)


def load(
    manifest: Manifest,
    plan: Plan,
    joined: Joined = CABLE,
    *,
    cut: int | None = None,
    units: int = 1,
) -> Load:
    """Of four texts, on one device or, cut after a layer, on two."""
    last = manifest.dimensions.layers - 1
    stages = [Stage(LOCAL, 0, last)]
    if cut is not None:
        stages = [Stage(LOCAL, 0, cut), Stage("w1", cut + 1, last)]
    fleet = Fleet(PROFILE, len(stages), joined)
    sent = 0 if cut is None else 10**5
    work = Workload(4, 8)
    return load_of(manifest, plan, fleet, stages, units=units, workload=work, sent_bytes=sent)


def test_a_stretch_begins_where_the_ratio_reaches_what_is_asked_for() -> None:
    # The ratio is the square root of x over 4: 1 at 16, 2 at 64; a power of x, so found exactly.
    times = [math.sqrt(x) / 4 for x in XS]
    assert stretches(XS, times, 1.0) == [Stretch(pytest.approx(16.0), None)]
    (found,) = stretches(XS, times, 0.75)
    assert found == (pytest.approx(9.0), None)


def test_a_stretch_may_end_and_begin_again() -> None:
    found = stretches(XS, [2.0, 0.5, 0.5, 2.0], 1.0)
    assert found == [Stretch(None, pytest.approx(2.0)), Stretch(pytest.approx(32.0), None)]
    assert words_of(found, XS, "Mbit") == "up to 2 Mbit and from 32 Mbit on"
    inside = stretches(XS, [0.5, 2.0, 2.0, 0.5], 1.0)
    assert words_of(inside, XS, "Mbit") == "from 2 to 32 Mbit"


def test_what_holds_nowhere_or_everywhere_is_told_with_the_ends() -> None:
    assert words_of(stretches(XS, [0.9] * 4, 1.0), XS, "tokens") == "nowhere from 1 to 64 tokens"
    assert words_of(stretches(XS, [1.0] * 4, 1.0), XS, "tokens") == "everywhere from 1 to 64 tokens"
    assert words_of(stretches([5.0], [2.0], 1.0), [5.0], "tokens") == (
        "everywhere from 5 to 5 tokens"
    )


def test_points_are_held_against_the_roof_and_one_device() -> None:
    found = point(4.0, 1.25, 1.0)
    assert found.efficiency == pytest.approx(0.8)
    assert found.times == pytest.approx(1.6)
    assert found.predicted_times == pytest.approx(3.0)
    (row,) = series_table(Series("made up", "Mbit", (found,))).to_json()["rows"]
    assert row["off"] == pytest.approx(-0.2)
    assert row["over devices"] == pytest.approx(0.8)


def test_a_summary_tells_exponents_limits_and_where_devices_pay() -> None:
    points = [
        point(1.0, 4.0, 6.0, limiting=LINK),
        point(4.0, 2.0, 3.0, limiting=LINK),
        point(16.0, 1.0, 1.5, limiting=STORAGE),
    ]
    series = Series("made up", "Mbit", tuple(points))
    (fit,) = fit_table([series]).to_json()["rows"]
    assert fit["measured"] == pytest.approx(-0.5)
    assert fit["roof"] == pytest.approx(0.0)
    assert fit["limited by"] == "link to storage between 4 and 16"
    (pays,) = pays_table([series]).to_json()["rows"]
    assert pays["faster, measured"] == "from 4 Mbit on"
    assert pays["1.2 times as fast, predicted"] == "from 5.76 Mbit on"


def test_multiply_adds_grow_with_texts_and_faster_with_tokens(
    manifest: Manifest, plan: Plan
) -> None:
    dimensions = manifest.dimensions
    weights = sum(group.shard_weights * group.slices for group in manifest.groups)
    among = dimensions.layers * 2 * 8 * dimensions.hidden
    assert operations(manifest, plan, 1, 8) == 8 * (weights + among)
    assert operations(manifest, plan, 3, 8) == 3 * operations(manifest, plan, 1, 8)
    assert operations(manifest, plan, 1, 16) > 2 * operations(manifest, plan, 1, 8)


def test_two_devices_share_the_work_of_one(manifest: Manifest, plan: Plan) -> None:
    one, two = load(manifest, plan), load(manifest, plan, cut=0)
    # Both have head and embedding once; hidden states that come late are no work.
    for name in RESOURCES[:-1]:
        assert two.total_s[name] == pytest.approx(one.total_s[name])
    assert two.roof_s == pytest.approx(one.roof_s / 2)
    assert one.total_s[LINK] == one.path_s[LINK] == 0.0
    assert two.path_s[LINK] > 0.0


def test_units_read_the_weights_again(manifest: Manifest, plan: Plan) -> None:
    one, four = load(manifest, plan, cut=0), load(manifest, plan, cut=0, units=4)
    assert four.total_s[STORAGE] > 3.0 * one.total_s[STORAGE]


def test_links_that_are_slow_limit_and_a_medium_is_crossed_twice(
    manifest: Manifest, plan: Plan
) -> None:
    slow = Joined(0.1)
    own, shared = (
        load(manifest, plan, slow, cut=0),
        load(manifest, plan, slow._replace(shared=True), cut=0),
    )
    assert load(manifest, plan, cut=0).limiting != LINK
    assert own.limiting == shared.limiting == LINK
    # 10^5 bytes at 10^5 bits a second: 8 s, on two links at once; on one medium twice.
    assert own.roof_s == pytest.approx(4.0)
    assert shared.roof_s == pytest.approx(16.0)


def test_axes_that_take_namespaces_are_skipped_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
    monkeypatch.setattr("benchmarks.network.namespaces.TUN", tmp_path / "none")
    saved = tmp_path / "report.json"
    arguments = [str(tmp_path / "work"), "--quick", "--axes", "links,devices"]
    assert growth.main([*arguments, "--json", str(saved), "--output", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(saved.read_text(encoding="utf-8"))
    assert not report["tables"]
    for axis, note in zip(("devices", "links"), report["notes"], strict=True):
        assert note.startswith(f"axis {axis}: not measured: ")
        assert "emulated networks take" in note


def test_axes_are_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        growth.main(["work", "--axes", "depth"])
    assert "'depth' is none of one, devices, links" in capsys.readouterr().err
