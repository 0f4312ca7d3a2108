"""Profiles measured on a busy machine: used, told, and measured again; parts that packs share."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration import calibrate, fit_profile, lane_timer
from sti.calibration.cache import Cache
from sti.calibration.calibrate import best_threads, load_or_measure, measure_again
from sti.calibration.disturbance import Watch
from sti.calibration.parts import shape_key
from sti.calibration.read_timer import ReadTimer
from sti.device import host
from sti.device.profile import DeviceProfile
from sti.errors import ProfileError, StiWarning
from sti.pack.pack_reader import PackReader
from tests.support.packs import tiny_pack

ONCE = "measuring this device (once, about 2 s)"
AGAIN = "measuring this device again"


def told_of(share: int) -> str:
    return (
        f"measured while this machine was busy (waited {share} % of the time): provisional, "
        "measured again when it is quiet, or with `sti calibrate`"
    )


class Desk:
    """Opens one pack again and again, on a machine that is as busy as the test says."""

    def __init__(self, cache_dir: Path, reader: PackReader) -> None:
        self.cache_dir, self.reader = cache_dir, reader
        self.told: list[str] = []
        self.waited = 0.0

    def _note(self, line: str) -> None:
        real = "run `sti calibrate` with the pack when this machine is quiet" in line
        if not real or line.startswith(PROBLEM):
            self.told.append(line)

    def open(self, *, again: bool = False, **options: Any) -> DeviceProfile:
        """The profile; ``told`` holds the notices of this opening alone.

        But for those of costs that make no sense: the machine that tests run on may really be busy.
        """
        self.told = []
        get = measure_again if again else load_or_measure
        return get(
            self.reader,
            OrtBackend(self.reader, lanes=1),
            threads=1,
            cache_dir=self.cache_dir,
            notify=self._note,
            **options,
        )

    def files(self, kind: str) -> list[Path]:
        return sorted(self.cache_dir.glob(f"{kind}-*.json"))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(calibrate, "BUDGET_S", 0.1)
    with PackReader.open(tiny_pack()) as reader:
        made = Desk(tmp_path / "cache", reader)
        monkeypatch.setattr(Watch, "share", lambda *_, **__: made.waited)
        yield made


def age(path: Path, seconds: float) -> None:
    """Make a file of the cache look so many seconds older."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document["measured_at"] -= seconds
    path.write_text(json.dumps(document), encoding="utf-8")
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_provisional_profile_is_used_and_told_as_long_as_the_machine_is_busy(desk: Desk) -> None:
    desk.waited = 0.43
    first = desk.open()
    assert first.provisional and first.disturbed == pytest.approx(0.43)
    assert desk.told == [ONCE, told_of(43)]
    assert desk.open() == first
    assert desk.told == [told_of(43)]


def test_it_is_measured_again_at_the_next_quiet_moment(desk: Desk) -> None:
    desk.waited = 0.43
    first = desk.open()
    desk.waited = 0.0
    second = desk.open()
    assert desk.told == [AGAIN]
    assert second != first and not second.provisional
    assert desk.open() == second and desk.told == []


def test_what_was_disturbed_more_does_not_replace_what_is_kept(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.waited = 0.2
    first = desk.open()
    monkeypatch.setattr("sti.calibration.disturbance.is_quiet", lambda _: True)
    desk.waited = 0.6
    assert desk.open() == first and desk.told == [AGAIN, told_of(20)]
    assert desk.open() == first and desk.told == [told_of(20)], "not at once again"
    for kept in (*Cache(desk.cache_dir).profiles(), *Cache(desk.cache_dir).storages()):
        assert kept.tried_at > kept.measured_at
    for kind in ("profile", "storage"):
        for path in desk.files(kind):
            os.utime(path, (time.time() - 100, time.time() - 100))
    assert desk.open() == first and desk.told == [AGAIN, told_of(20)]


def test_a_quiet_profile_survives_a_calibration_of_a_busy_machine(desk: Desk) -> None:
    first = desk.open()
    desk.waited = 0.5
    assert desk.open(force=True) == first
    assert desk.told == [AGAIN, "the earlier measurement was disturbed less, and is kept"]


def test_who_doubts_a_young_and_quiet_profile_gets_it_back(desk: Desk) -> None:
    first = desk.open(again=True)
    assert desk.told == [ONCE]
    assert desk.open(again=True) == first and desk.told == []


def test_who_doubts_an_old_one_gets_one_measured_now(desk: Desk) -> None:
    first = desk.open()
    for kind in ("profile", "storage"):
        for path in desk.files(kind):
            age(path, 3_600.0)
    second = desk.open(again=True)
    assert second != first and desk.told == [AGAIN]
    assert desk.open() == second
    third = desk.open(again=True, within_s=0.0)
    assert third != second and desk.told == [AGAIN]


def test_who_doubts_a_provisional_one_gets_the_better_of_two(desk: Desk) -> None:
    desk.waited = 0.3
    first = desk.open()
    desk.waited = 0.5
    assert desk.open(again=True) == first
    desk.waited = 0.1
    second = desk.open(again=True)
    assert second.disturbed == pytest.approx(0.1)
    assert desk.open() == second


def test_of_several_that_find_nothing_one_measures_and_the_others_wait(desk: Desk) -> None:
    told, found = list[str](), list[DeviceProfile]()
    waits, release = threading.Event(), threading.Event()

    def notify(text: str) -> None:
        told.append(text)
        if text == ONCE:
            release.wait(10.0)
        else:
            waits.set()

    def work() -> None:
        with PackReader.open(tiny_pack()) as reader:
            backend = OrtBackend(reader, lanes=1)
            found.append(
                load_or_measure(reader, backend, threads=1, cache_dir=desk.cache_dir, notify=notify)
            )

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert waits.wait(10.0)
    release.set()
    for thread in threads:
        thread.join()
    assert sorted(told) == [ONCE, "waiting for another process to measure"]
    assert found[0] == found[1]


def test_packs_of_one_shape_share_a_profile_and_other_packs_the_storage_lane(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = desk.open()
    monkeypatch.setattr(ReadTimer, "once", lambda _: pytest.fail("storage is known"))
    with ExitStack() as opened:
        desk.reader = opened.enter_context(PackReader.open(tiny_pack(seed=1)))
        assert desk.open() == first and desk.told == []
        desk.reader = opened.enter_context(PackReader.open(tiny_pack("classification")))
        other = desk.open()
    assert desk.told == [ONCE]
    assert other.storage == first.storage and other.decode != first.decode
    assert (len(desk.files("profile")), len(desk.files("storage"))) == (2, 1)


@pytest.mark.parametrize(("graph", "shared"), [("head", True), ("embed", False)])
def test_a_shape_is_that_of_the_graphs_but_not_of_the_head(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, graph: str, shared: bool
) -> None:
    before, tensor = shape_key(desk.reader), desk.reader.manifest.graphs[graph]
    real = PackReader.resident

    def other(reader: PackReader, name: str) -> Any:
        found = real(reader, name)
        return found[::-1] if name == tensor else found

    monkeypatch.setattr(PackReader, "resident", other)
    with PackReader.open(desk.reader.path) as again:
        assert (shape_key(again) == before) is shared


def test_only_the_storage_lane_is_measured_where_all_the_rest_is_known(desk: Desk) -> None:
    first = desk.open()
    desk.files("storage")[0].unlink()
    second = desk.open()
    assert desk.told == [ONCE] and second.storage != first.storage
    assert (second.runs, second.decode, second.compute) == (
        first.runs,
        first.decode,
        first.compute,
    )
    assert desk.open() == second and desk.told == []


@pytest.mark.parametrize("kind", ["profile", "storage"])
def test_what_was_measured_on_another_machine_is_told_and_measured_anew(
    desk: Desk, kind: str
) -> None:
    desk.open()
    (path,) = desk.files(kind)
    document = json.loads(path.read_text(encoding="utf-8"))
    document["value"]["device"] = "Cortex-A76, 8 cores"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.warns(StiWarning, match=r"another machine \(Cortex-A76, 8 cores\), and is ignored"):
        profile = desk.open()
    assert desk.told == [ONCE]
    assert profile.device.startswith(host.cpu_name())
    assert desk.open() == profile


@pytest.mark.parametrize(
    ("field", "value"), [("instructions", "mmx"), ("kernel", "none"), ("threads", 64)]
)
def test_so_is_what_was_measured_with_other_instructions_kernel_or_threads(
    desk: Desk, field: str, value: object
) -> None:
    desk.open()
    (path,) = desk.files("profile")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["value"][field] = value
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.warns(StiWarning, match="another machine"):
        profile = desk.open()
    assert desk.told == [ONCE] and getattr(profile, field) != value


@pytest.mark.parametrize("value", [1e300, 1e-30, -1.0])
def test_a_profile_with_absurd_values_is_told_by_name_and_measured_anew(
    desk: Desk, value: float
) -> None:
    desk.open()
    (path,) = desk.files("profile")
    document = json.loads(path.read_text(encoding="utf-8"))
    document["value"]["runs"]["shared"]["fixed_s"] = value
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.warns(StiWarning, match="ignored: .*runs: shared: field 'fixed_s' must be"):
        desk.open()
    assert desk.told == [ONCE]


def test_cores_that_were_taken_away_are_measured_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "core_count", lambda: 2)
    monkeypatch.setattr(host, "fast_core_count", lambda: 2)
    desk.open()
    assert best_threads(desk.reader, cache_dir=desk.cache_dir) == 2
    monkeypatch.setattr(host, "core_count", lambda: 1)
    monkeypatch.setattr(host, "fast_core_count", lambda: 1)
    assert best_threads(desk.reader, cache_dir=desk.cache_dir) == 1
    profile = desk.open()
    assert desk.told == [ONCE] and "pipelined" not in profile.runs


PROBLEM = "the times of graph head contradict one another"


def fail_fits(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let fits make no sense for so many times; gets the number of steps of each."""
    counts, real = list[int](), fit_profile.fit_profile

    def fit(seen: Any, *args: Any, **options: Any) -> Any:
        counts.append(len(seen.steps))
        found = real(seen, *args, **options)
        return found._replace(problems=[PROBLEM] if len(counts) <= times else [])

    monkeypatch.setattr(fit_profile, "fit_profile", fit)
    return counts


def test_a_fit_that_makes_no_sense_is_tried_with_more_samples(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = fail_fits(monkeypatch, 1)
    monkeypatch.setattr(calibrate, "BUDGET_S", 2.0)
    monkeypatch.setattr(calibrate, "SPARE", 0.9)
    assert not desk.open().provisional and desk.told == [ONCE]
    assert len(counts) == 2 and counts[0] < counts[1]


def test_one_that_never_makes_sense_is_named_and_its_profile_provisional(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_fits(monkeypatch, 2)
    assert desk.open().provisional
    _, named, told = desk.told
    assert named.startswith(f"{PROBLEM}; run `sti calibrate`")
    assert told == (
        "what was measured makes no sense: provisional, measured again when it is quiet, or with "
        "`sti calibrate`"
    )
    assert not desk.open().provisional and desk.told == [AGAIN]


def test_what_could_not_be_timed_is_an_error_and_nothing_is_kept(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_timer, "LONGEST_S", 0.0)  # no time makes sense
    with pytest.raises(ProfileError, match=r"no time of .* run `sti calibrate`"):
        desk.open()
    assert desk.files("profile") == []
    assert not [each for each in threading.enumerate() if each.name.startswith("sti-")]


def test_samples_are_watched_and_threads_that_only_read_are_told_apart(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[tuple[int, int]]()

    class Seen(Watch):
        def __init__(self, workers: Any = (), readers: Any = ()) -> None:
            made.append((len(workers), len(readers)))
            super().__init__(workers, readers)

    monkeypatch.setattr(lane_timer, "Watch", Seen)
    monkeypatch.setattr(host, "core_count", lambda: 2)
    desk.open()
    assert made == [(0, 0), (1, 2)], "one for sequential runs, one for those of several threads"
