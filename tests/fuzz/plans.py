"""Readers of what is kept and passed around: plans, traces, profiles, corrections, histories."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from random import Random

from sti.calibration.cache import Cache
from sti.calibration.history_file import HistoryFile
from sti.calibration.kept import StoragePart
from sti.device.device_files import load_device, shipped_devices
from sti.device.lanes import SEQUENTIAL
from sti.device.profile import DeviceProfile
from sti.engine.replay import Recording
from sti.errors import InfeasibleError, ProfileError
from sti.model.workload import Workload
from sti.planning.check import check_plan
from sti.planning.corrections import Corrections
from sti.planning.history_json import history_json, read_history
from sti.planning.plan import Plan, PlanRequest
from sti.planning.plan import Target as Aim
from sti.planning.planner import make_plan
from sti.planning.prediction import predict
from sti.planning.step_jobs import prepare
from sti.planning.uniform import uniform_plan
from tests.fuzz import sources
from tests.fuzz.target import Target, must
from tests.support.packs import PROFILE
from tests.support.synthetic import MINILM, make_manifest

_KEY = {"key": 1}
_MINILM = make_manifest(Random(1), **MINILM)
_HISTORY = {
    "history": 1,
    "days": [
        {
            "day": "2026-01-31",
            "target": {"latency_s": 0.2, "memory_bytes": None, "preload_bytes": 0, "quantile": 0.9},
            "inside": 3,
            "late": 1,
            "classes": [[100, 3], [120, 1]],
        }
    ],
    "last": {
        "ended_at": 1.8e9,
        "plan": "abc",
        "depth": 3,
        "width": 4,
        "total_s": 0.1,
        "predicted_s": 0.2,
        "target": {"latency_s": 0.2, "memory_bytes": 5, "preload_bytes": 0, "quantile": 0.9},
        "workload": {"batch": 1, "tokens": 16},
        "lanes": {"compute": [[0.0, 0.1, "embed"], [0.1, 0.2, "0 attention 0"]]},
    },
}


def _made() -> Plan:
    request = PlanRequest(sources.manifest(), sources.pack_id(), Workload(1, 16), Aim(0.2, 4096))
    return make_plan(request, PROFILE)


def _used(plan: Plan) -> None:
    """Do with a plan that fits the pack what a run would."""
    manifest = sources.manifest()
    check_plan(plan, manifest, sources.pack_id(), where="plan")
    predict(manifest, PROFILE, plan)
    jobs = prepare(plan, manifest, lambda group: group.start)
    must(len(jobs) == len(plan.steps), "a job for each step")


def _plan(data: bytes) -> None:
    plan = Plan.from_text(data.decode("utf-8", "replace"), where="plan")
    must(Plan.from_text(plan.to_text(), where="plan") == plan, "a plan reads back the same")
    _used(plan)


def _trace(data: bytes) -> None:
    recording = Recording.read(sources.written("trace.json", data))
    recording.check_pack(sources.manifest(), sources.pack_id())
    _ = recording.target


def _trace_seed() -> bytes:
    run = {"texts": 1, "tokens": 5, "crc32": 7, "plan": _made().to_json()}
    return sources.dumped({"sti": {"recording": 2, "pack": sources.pack_id(), "runs": [run]}})


def _device(data: bytes) -> None:
    profile = load_device(sources.written("device.json", data), sources.manifest())
    again = DeviceProfile.from_json(profile.to_json(), where="again")
    must(again == profile, "a profile reads back the same")
    profile.slowed({"compute": 2.0})
    for manifest in (sources.manifest(), _MINILM):
        try:
            request = PlanRequest(manifest, sources.pack_id(), Workload(1, 32), Aim(0.2))
            plan = make_plan(request, profile)
            must(Plan.from_json(plan.to_json(), where="plan") == plan, "a plan reads back the same")
        except (InfeasibleError, ProfileError):
            continue


def _devices() -> list[bytes]:
    shipped = [sources.device(name) for name in shipped_devices()]
    return [sources.dumped(PROFILE.to_json()), *shipped]


def _cache(data: bytes) -> None:
    """The same bytes as every kind of entry."""
    cache = Cache(sources.place() / "cache")
    for kind in ("profile", "storage", "threads", "plan", "corrections"):
        sources.written(f"cache/{cache.path(kind, _KEY).name}", data)
    profile = cache.load_profile(_KEY)
    if profile is not None:
        _ = profile.age_s
    storage = cache.load_storage(_KEY)
    if storage is not None:
        part = storage.value
        must(StoragePart.from_json(part.to_json(), where="again") == part, "reads back the same")
    cache.load_threads(_KEY)
    plan = cache.load_plan(_KEY)
    if plan is not None:
        must(Plan.from_json(plan.to_json(), where="plan") == plan, "a plan reads back the same")
    _restored(cache.load_corrections(_KEY))
    list(cache.profiles())
    list(cache.storages())


def _restored(value: object) -> None:
    corrections = Corrections({SEQUENTIAL.name: 1.1})
    try:
        corrections.restore(value, where="corrections")
    except ProfileError:
        return
    again = Corrections({SEQUENTIAL.name: 1.1})
    again.restore(corrections.to_json(), where="again")
    must(again.to_json() == corrections.to_json(), "corrections read back the same")
    corrections.spread(SEQUENTIAL.name, 0.98)


def _entries() -> list[bytes]:
    part = StoragePart(PROFILE.storage, "a machine", 0.0)
    values = (PROFILE.to_json(), part.to_json(), 2, _made().to_json())
    values += (Corrections({SEQUENTIAL.name: 1.1}).to_json(),)
    return [sources.dumped({"key": _KEY, "measured_at": 1.7e9, "value": value}) for value in values]


def _history(data: bytes) -> None:
    cache = Cache(sources.place() / "histories")
    file = HistoryFile("pack", cache)
    sources.written(f"histories/{file.path.name}", data)
    found = file.read()
    again = read_history(history_json(found), where="again")  # times are rounded once
    must(read_history(history_json(again), where="again") == again, "a history reads back the same")
    found.plus(found).bounded("2000-01-01", "2030-01-01")


def targets() -> Sequence[Target]:
    """The targets of this module."""
    plan, profile = _made().to_json(), PROFILE.to_json()
    words = sources.names_in(plan)
    return (
        Target("plan", _plan, _plans, "json", words),
        Target("trace", _trace, lambda: [_trace_seed()], "json", words),
        Target("device", _device, _devices, "json", sources.names_in(profile)),
        Target("cache", _cache, _entries, "json", sources.names_in(plan, profile)),
        Target(
            "history",
            _history,
            lambda: [sources.dumped({"value": _HISTORY})],
            "json",
            sources.names_in(_HISTORY),
        ),
    )


def _plans() -> list[bytes]:
    made = _made()
    request = PlanRequest(sources.manifest(), sources.pack_id(), Workload(1, 16))
    plain = uniform_plan(request, bits=4, profile=PROFILE)
    bare = dataclasses.replace(made, predicted=None)
    return [plan.to_text().encode() for plan in (made, plain, bare)]
