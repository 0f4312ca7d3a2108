"""``sti calibrate``: measure this device with a pack, choose the number of threads, save both.

In: parsed arguments. Out: what was measured, for people or as JSON. Without a pack: what was
measured before.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration.cache import Cache
from sti.calibration.calibrate import load_or_measure, remember_threads, thread_choices
from sti.cli.measured import kept_facts, kept_table, share
from sti.cli.program import notice, print_json
from sti.device.host import check_threads
from sti.device.lane_profiles import THREAD_NAMES, RunProfile
from sti.device.lanes import COMPUTE, LANES
from sti.device.profile import DeviceProfile
from sti.errors import InputError
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import PlanRequest
from sti.planning.uniform import uniform_plan
from sti.report.tables import aligned
from sti.report.wording import counted
from sti.units import format_time

SHOWN_TOKENS = (32, 128)
WORTH = 0.97
"""More threads are chosen only if a run takes at most this share of the time."""


def execute(args: argparse.Namespace) -> None:
    """Measure with the pack, or list earlier measurements."""
    check_threads(args.threads)
    if args.pack is None:
        if args.threads is not None:
            raise InputError("--threads: name the pack to measure with that many threads")
        _list(as_json=args.json)
        return
    with PackReader.open_whole(args.pack) as reader:
        profiles = {
            threads: load_or_measure(
                reader,
                OrtBackend(reader, lanes=threads),
                threads=threads,
                force=True,
                notify=notice,
            )
            for threads in ([args.threads] if args.threads else thread_choices())
        }
        runs = {
            threads: [_run_s(reader, profile, tokens) for tokens in SHOWN_TOKENS]
            for threads, profile in profiles.items()
        }
        best = choose({threads: seconds[-1] for threads, seconds in runs.items()})
        quiet = not any(profile.provisional for profile in profiles.values())
        if quiet:  # else which number is best is not known
            remember_threads(reader, best)
    if args.json:
        measured = {str(threads): profile.to_json() for threads, profile in profiles.items()}
        provisional = {str(threads): found.provisional for threads, found in profiles.items()}
        print_json({"threads": best, "provisional": provisional, "profiles": measured})
        return
    print(profiles[best].device + "\n")
    print(_table(profiles, runs))
    threads = counted(best, "compute thread")
    if quiet:
        print(f"{threads} will be used with this pack's graphs")
    else:
        print(
            f"{threads} would be used with this pack's graphs, but this machine was busy: what is "
            "provisional is measured again when it is quiet, or by `sti calibrate`"
        )


def choose(run_s: Mapping[int, float]) -> int:
    """The number of threads to use, given the seconds of a run with each number."""
    best = min(run_s)
    for threads in sorted(run_s):
        if run_s[threads] < run_s[best] * WORTH:
            best = threads
    return best


def _run_s(reader: PackReader, profile: DeviceProfile, tokens: int) -> float:
    """Predicted seconds of a run at the middle of the ladder."""
    manifest = reader.manifest
    plan = uniform_plan(
        PlanRequest(
            manifest, reader.pack_id, Workload(1, min(tokens, manifest.dimensions.max_tokens))
        ),
        bits=manifest.ladder[len(manifest.ladder) // 2],
        profile=profile,
    )
    assert plan.predicted is not None
    return plan.predicted.total_s


def _waking(run: RunProfile) -> str:
    """What steps take for waking threads; a fit that shows nothing is no measurement of 0."""
    return format_time(run.step_s) if run.step_s > 0.0 else "too little to tell"


def _table(profiles: Mapping[int, DeviceProfile], runs: Mapping[int, Sequence[float]]) -> str:
    """What was measured, with a column per number of threads."""
    header = ["compute threads", *(str(threads) for threads in profiles)]
    first = next(iter(profiles.values()))
    rows = [
        ["waited for a core", *(share(p.disturbed) for p in profiles.values())],
        ["direct IO", *("yes" if p.storage.direct else "no" for p in profiles.values())],
        ["storage MB/s", *(f"{p.storage.bytes_per_s / 1e6:.0f}" for p in profiles.values())],
        ["per request", *(format_time(p.storage.request_s) for p in profiles.values())],
        ["per token embedding", *(format_time(p.storage.row_s) for p in profiles.values())],
    ]
    for bits in first.decode.weight_s:
        costs = (f"{p.decode.weight_s[bits] * 1e9:.2f}" for p in profiles.values())
        rows.append([f"decode at {bits} bits, ns per weight", *costs])
    rows.append(["decode, per shard", *(format_time(p.decode.shard_s) for p in profiles.values())])
    for name in THREAD_NAMES:
        runs_of = [p.runs.get(name) for p in profiles.values()]
        cells = (f"{run.contention[COMPUTE]:.2f}" if run else "-" for run in runs_of)
        rows.append([f"contention, {name}", *cells])
        cells = (_waking(run) if run else "-" for run in runs_of)
        rows.append([f"waking up, {name}, per step", *cells])
        rows.append([f"jitter, {name}", *(f"{run.jitter:.2f}" if run else "-" for run in runs_of)])
        for lane in LANES:
            cells = (f"{run.spread[lane]:.2f}" if run and run.spread else "-" for run in runs_of)
            rows.append([f"spread of {lane}, {name}", *cells])
    for place, tokens in enumerate(SHOWN_TOKENS):
        cells = (format_time(seconds[place]) for seconds in runs.values())
        rows.append([f"predicted run of {tokens} tokens", *cells])
    return aligned(header, rows)


def _list(*, as_json: bool) -> None:
    cache = Cache()
    if as_json:
        profiles = [
            {"file": str(kept.path), "measured_at": kept.measured_at, **kept.value.to_json()}
            for kept in cache.profiles()
        ]
        print_json({"cache": str(cache.directory), "profiles": profiles})
        return
    found = kept_facts(cache)
    if not found:
        print(f"nothing measured yet in {cache.directory}; `sti calibrate PACK` measures")
        return
    print(f"profiles in {cache.directory}:")
    print(kept_table(found), end="")
