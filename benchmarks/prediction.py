"""The device profile: how long measuring takes, and how well plans predict runs with it.

    python -m benchmarks.prediction PACK

The device is measured several times; each profile predicts runs of other lengths and fidelities
than those it was measured with, which are then run, in turns. A machine that is busy with other
things is measured badly: look at the load.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks import common
from benchmarks.common import Column, Report, Table, median, p95
from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration import calibrate
from sti.calibration.calibrate import best_threads, measure
from sti.device.lane_profiles import THREAD_NAMES
from sti.device.lanes import COMPUTE
from sti.device.profile import DeviceProfile
from sti.engine.engine import Engine
from sti.errors import StiError
from sti.pack.pack_reader import PackReader

LIMIT_S = 2.0
_PROFILES = (
    Column("profile"),
    Column("measured in s", ".2f"),
    Column("storage GB/s", ".2f"),
    Column("decode ns a weight, 4 bits", ".2f"),
    Column("contention, shared", ".2f"),
    Column("waking up us a step", ".0f"),
    Column("fixed ms", ".2f"),
    Column("jitter", ".2f"),
    Column("error, median", ".1%"),
    Column("error, largest", ".1%"),
)
_RUNS = (
    Column("bits"),
    Column("tokens"),
    Column("measured ms", ".1f"),
    Column("p95", ".1f"),
    Column("least", ".1f"),
    Column("predicted ms", ".1f"),
    Column("predicted / measured", ".2f"),
)


def profiles_of(
    pack: Path, *, threads: int | None, count: int
) -> list[tuple[DeviceProfile, float]]:
    """Profiles measured one after the other, and the seconds each took."""
    found = []
    with PackReader.open(pack) as reader:
        threads = best_threads(reader) if threads is None else threads
        backend = OrtBackend(reader, lanes=threads)
        for _ in range(count):
            start = perf_counter()
            profile = measure(reader, backend, threads=threads, budget_s=calibrate.BUDGET_S)
            found.append((profile, perf_counter() - start))
    return found


def measure_runs(
    pack: Path, *, bits: Sequence[int], tokens: Sequence[int], threads: int, repeats: int
) -> dict[tuple[int, int], list[float]]:
    """Seconds of each run, for every fidelity and length, taken in turns."""
    runs: dict[tuple[int, int], list[float]] = {(b, t): [] for b in bits for t in tokens}
    with PackReader.open(pack) as reader:
        texts = {count: common.text_of(reader, count)[0] for count in tokens}
    with Engine.open(pack, fidelity=bits[0], threads=threads) as engine:
        for turn in range(repeats + 1):
            for (number, count), seconds in runs.items():
                engine.set_target(fidelity=number)
                total = engine.run([texts[count]]).timing.total_s * 1e3
                if turn:
                    seconds.append(total / 1e3)
    return runs


def predicted_s(pack: Path, profile: DeviceProfile, bits: int, tokens: int) -> float:
    """What a plan made with ``profile`` predicts."""
    with Engine.open(pack, fidelity=bits, profile=profile, threads=profile.threads) as engine:
        predicted = engine.plan_for(tokens=tokens).predicted
    assert predicted is not None
    return predicted.total_s


def report(
    pack: Path,
    *,
    bits: Sequence[int],
    tokens: Sequence[int],
    threads: int | None,
    profiles: int,
    repeats: int,
) -> Report:
    """Measure, predict, run, compare."""
    about = common.about_machine()
    found = profiles_of(pack, threads=threads, count=profiles)
    used = found[0][0].threads
    runs = measure_runs(pack, bits=bits, tokens=tokens, threads=used, repeats=repeats)
    about.append(f"{pack.name}, {used} compute threads; {repeats} runs of each, in turns")
    by_profile = Table("Profiles", _PROFILES)
    by_run = Table("Runs, against the median of the profiles' predictions", _RUNS)
    predictions = {
        case: [predicted_s(pack, profile, *case) for profile, _ in found] for case in runs
    }
    for place, (profile, seconds) in enumerate(found):
        errors = np.array([abs(predictions[case][place] / median(runs[case]) - 1) for case in runs])
        shared = profile.runs[THREAD_NAMES[-1]]
        by_profile.rows.append(
            (
                place + 1,
                seconds,
                profile.storage.bytes_per_s / 1e9,
                profile.decode.weight_s.get(4, 0.0) * 1e9,
                shared.contention[COMPUTE],
                shared.step_s * 1e6,
                shared.fixed_s * 1e3,
                shared.jitter,
                float(np.median(errors)),
                float(errors.max()),
            )
        )
    for case, times in runs.items():
        middle, expected = median(times), median(predictions[case])
        row = (*case, middle * 1e3, p95(times) * 1e3, min(times) * 1e3, expected * 1e3)
        by_run.rows.append((*row, expected / middle))
    limits = Table("Limit", common.LIMITS)
    longest = max(seconds for _, seconds in found)
    limits.rows.append(common.at_most("seconds to measure a device", longest, LIMIT_S))
    return Report("Prediction", about, [limits, by_profile, by_run])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser("prediction", __doc__, "bert-base.sti.safetensors --tokens 24 100")
    parser.add_argument("pack", type=Path, metavar="PACK")
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 4, 8], help="default: 2 4 8")
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[24, 48, 96, 192], help="default: 24 48 96 192"
    )
    parser.add_argument("--threads", type=int, help="compute threads; default: the engine's choice")
    parser.add_argument("--profiles", type=int, default=3, help="times to measure; default: 3")
    parser.add_argument("--repeats", type=int, default=9, help="runs of each; default: 9")
    options = parser.parse_args(arguments)
    try:
        made = report(
            options.pack,
            bits=options.bits,
            tokens=options.tokens,
            threads=options.threads,
            profiles=options.profiles,
            repeats=options.repeats,
        )
    except StiError as error:
        print(f"prediction: {error}", file=sys.stderr)
        return error.exit_code
    made.print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
