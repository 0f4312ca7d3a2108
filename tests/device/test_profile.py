"""Device profiles: round trip, malformed input, and what they predict."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.device.lane_profiles import COMPUTE_TERMS, StorageProfile
from sti.device.lanes import COMPUTE, DECODE, LANES, PIPELINED, SEQUENTIAL, STORAGE, shared
from sti.device.profile import DeviceProfile
from sti.errors import ProfileError
from sti.model.workload import Workload
from tests.support.synthetic import make_profile


def changed(path: str, value: object) -> dict[str, Any]:
    """The JSON of a good profile with one field changed; ``...`` removes it."""
    body: dict[str, Any] = make_profile().to_json()
    *way, last = path.split(".")
    place = body
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return body


@given(st.integers(0, 10_000))
def test_a_profile_survives_json(seed: int) -> None:
    profile = make_profile(Random(seed))
    text = json.dumps(profile.to_json(), allow_nan=False)
    assert DeviceProfile.from_json(json.loads(text), where="p") == profile


def test_no_lane_is_lost_on_the_way_through_json() -> None:
    measured = make_profile()
    lanes = {name: lane for name, lane in measured.lanes.items() if name != DECODE}
    bare = replace(measured, lanes=lanes)
    assert set(bare.to_json()["lanes"]) == set(lanes)
    with pytest.raises(ProfileError, match="has no decode lane"):
        _ = bare.decode
    linked = measured.with_lanes({"link": measured.storage})
    assert set(linked.to_json()["lanes"]) == {*measured.lanes, "link"}
    with pytest.raises(ProfileError, match="p: lanes: unknown lane 'link'"):
        DeviceProfile.from_json(linked.to_json(), where="p")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("profile", 99),
        ("profile", ...),
        ("device", 7),
        ("instructions", ...),
        ("kernel", 1),
        ("threads", 0),
        ("lanes.storage", []),
        ("lanes.storage.bytes_per_s", 0),
        ("lanes.storage.request_s", -1e-6),
        ("lanes.storage.direct", "yes"),
        ("lanes.decode.weight_s", {"four": 1e-9}),
        ("lanes.decode.weight_s", {"²": 1e-9}),
        ("lanes.decode.weight_s", {"9" * 5000: 1e-9}),
        ("lanes.decode.weight_s", {"4": float("inf")}),
        ("lanes.decode.shard_s", None),
        ("lanes.compute.graphs.attention", [1.0, 2.0]),
        ("lanes.compute.graphs.head", ["fast"] * COMPUTE_TERMS),
        ("lanes", []),
        ("lanes.decode", ...),
        ("runs", ...),
        ("runs", {}),
        ("runs.crowded", {}),
        ("runs.pipelined", []),
        ("runs.pipelined.contention", 1.1),
        ("runs.pipelined.contention.decode", ...),
        ("runs.pipelined.contention.compute", 0.0),
        ("runs.pipelined.contention.storage", -1.0),
        ("runs.pipelined.step_s", -1e-6),
        ("runs.pipelined.fixed_s", True),
        ("runs.pipelined.jitter", 0.9),
        ("runs.pipelined.jitter", float("nan")),
        ("tokenize_s", ...),
        ("disturbed", ...),
        ("disturbed", 1.5),
        ("runs.pipelined.spread", ...),
        ("runs.pipelined.spread", {"compute": 0.5}),
    ],
)
def test_a_malformed_profile_is_refused_with_its_source(path: str, value: object) -> None:
    with pytest.raises(ProfileError, match=r"cache/here\.json"):
        DeviceProfile.from_json(changed(path, value), where="cache/here.json")


@pytest.mark.parametrize("value", [1e300, 1e-30, -1e-6])
@pytest.mark.parametrize(
    "path",
    [
        "lanes.storage.request_s",
        "lanes.storage.row_s",
        "lanes.decode.shard_s",
        "lanes.decode.weight_s.4",
        "runs.pipelined.step_s",
        "runs.pipelined.fixed_s",
        "tokenize_s",
    ],
)
def test_seconds_that_no_machine_takes_are_refused_by_name(path: str, value: float) -> None:
    with pytest.raises(
        ProfileError, match=rf"'{path.rsplit('.', maxsplit=1)[-1]}' must be 0, or seconds"
    ):
        DeviceProfile.from_json(changed(path, value), where="here")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("lanes.storage.bytes_per_s", 1e300),
        ("lanes.storage.bytes_per_s", 1e-30),
        ("lanes.compute.graphs.head", [1e300, 0.0, 0.0, 0.0, 0.0]),
        ("lanes.compute.graphs.head", [0.0, 0.0, -1.0, 0.0, 0.0]),
        ("runs.pipelined.jitter", 1e300),
        ("runs.pipelined.contention.compute", 1e-30),
        ("runs.pipelined.contention.decode", 1e30),
        ("runs.pipelined.spread", {"compute": 1e30}),
        ("threads", 10**6),
        ("device", "a" * 10_000),
        ("lanes.compute.graphs", {str(number): [0.0] * 5 for number in range(500)}),
    ],
)
def test_other_figures_that_no_machine_has_are_refused_by_name(path: str, value: object) -> None:
    name = "compute" if path.endswith("spread") else path.rsplit(".", maxsplit=1)[-1]
    with pytest.raises(ProfileError, match=rf"here: .*'{name}' must be"):
        DeviceProfile.from_json(changed(path, value), where="here")


def test_a_profile_that_waited_for_more_than_a_twentieth_of_the_time_is_provisional() -> None:
    assert not replace(make_profile(), disturbed=0.05).provisional
    assert replace(make_profile(), disturbed=0.06).provisional


@pytest.mark.parametrize("value", [None, [], "profile", 3])
def test_what_is_no_object_is_no_profile(value: object) -> None:
    with pytest.raises(ProfileError, match="expected an object"):
        DeviceProfile.from_json(value, where="here")


@pytest.mark.parametrize(("version", "made"), [(1, "an older"), (99, "a newer")])
def test_another_version_says_whose_it_is_and_what_to_do(version: int, made: str) -> None:
    with pytest.raises(ProfileError, match=f"from {made} STI .*; measure again with `sti cal"):
        DeviceProfile.from_json(changed("profile", version), where="here")


def test_a_read_costs_its_requests_and_its_bytes() -> None:
    storage = StorageProfile(direct=True, request_s=1e-4, bytes_per_s=1e9, row_s=0.0)
    assert storage.read_s(0, 0) == 0.0
    assert storage.read_s(3, 2_000_000) == pytest.approx(2.3e-3)


def test_compute_grows_with_each_of_its_terms() -> None:
    body = make_profile().to_json()
    body["lanes"]["compute"]["graphs"]["attention"] = [0.1, 1.0, 10.0, 100.0, 1000.0]
    profile = DeviceProfile.from_json(body, where="here")
    batch, tokens, width = 2, 3, 5
    expected = 0.1 + width + 10 * 6 + 100 * width * 6 + 1000 * width * 6 * tokens
    assert profile.compute_s("attention", Workload(batch, tokens), width) == pytest.approx(expected)


def test_a_lane_that_a_profile_lacks_is_named() -> None:
    profile = make_profile()
    bare = replace(profile, lanes={STORAGE: profile.storage})
    assert bare.storage == profile.storage
    with pytest.raises(ProfileError, match="no decode lane"):
        _ = bare.decode


def test_threads_that_runs_were_not_measured_under_are_named() -> None:
    profile = make_profile(kinds=(SEQUENTIAL, shared(3)), jitter=1.2)
    assert profile.run(SEQUENTIAL).contention == {STORAGE: 1.0, DECODE: 1.0, COMPUTE: 1.0}
    assert profile.run(shared(profile.threads)).jitter == 1.2
    with pytest.raises(ProfileError, match="no shared runs on 7 threads; measure again"):
        profile.run(shared(7))
    with pytest.raises(ProfileError, match="no pipelined runs; measure again with `sti calibrate`"):
        profile.run(PIPELINED)


def test_lanes_are_replaced_one_by_one() -> None:
    profile = make_profile()
    slower = replace(profile.storage, bytes_per_s=1.0)
    found = profile.with_lanes({STORAGE: slower})
    assert (found.storage, found.decode, found.compute) == (slower, profile.decode, profile.compute)


@pytest.mark.parametrize("lane", LANES)
def test_a_slowed_lane_takes_longer_by_its_factor_and_others_as_long(lane: str) -> None:
    profile, workload = make_profile(), Workload(1, 64)
    slowed = profile.slowed({lane: 3.0})

    def seconds(found: DeviceProfile) -> dict[str, list[float]]:
        return {
            STORAGE: [found.storage.read_s(2, 10**6), found.storage.row_s],
            DECODE: [found.decode.shard_s, *found.decode.weight_s.values()],
            COMPUTE: [found.compute_s(graph, workload, 3) for graph in found.compute.graphs],
        }

    before, after = seconds(profile), seconds(slowed)
    for each in LANES:
        factor = 3.0 if each == lane else 1.0
        assert after[each] == pytest.approx([factor * taken for taken in before[each]])
    assert slowed.runs == profile.runs and slowed.tokenize_s == profile.tokenize_s
    assert profile.slowed({}) == profile


@pytest.mark.parametrize(
    "place", ["", "lanes.storage", "lanes.decode", "lanes.compute", "runs.pipelined"]
)
def test_a_field_that_nobody_reads_is_refused_by_name(place: str) -> None:
    body = changed(".".join(filter(None, [place, "decoders"])), 500)
    with pytest.raises(ProfileError, match="unknown field 'decoders'; known are"):
        DeviceProfile.from_json(body, where="here")
