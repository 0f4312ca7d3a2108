"""Devices that are killed, frozen or unplugged amid runs: when it is noticed, what is answered.

    python -m benchmarks.devices_faults [PACK] [--trials 200] [--json FILE]

A controller and two workers, each with one half of the layers, are processes on an emulated network
(`benchmarks.network`: root, Linux, a C compiler), as devices that are some times slower than this
machine (`benchmarks.slow_device`), with one compute thread each. The controller is asked the same
again and again. In each trial a random one of the workers is killed, frozen or unplugged at a
random moment of a run. Noticed is when the controller's process knows that the device is lost,
counted from just before the fault; the engine tells so when it looks next, as late as the answer
that it is at by then. It goes on answering all the time. The fault is undone then, and the next
trial begins when both workers compute again. Every answer has to have the bits of an engine without
devices.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks import common
from benchmarks.common import ROOT, Column, Report, Table, at_least, at_most, median
from benchmarks.devices_faults_lab import FROZEN, KILLED, UNPLUGGED, WORKERS, Lab, Pack, Times
from benchmarks.rows import Row, Summary, measure_rows, reported

PACK = ROOT / "models" / "all-MiniLM-L6-v2.sti.safetensors"
NOTICED_S = {KILLED: 0.1, FROZEN: 1.0, UNPLUGGED: 1.0}
"""The latest that a fault may be noticed."""
_TEXTS, _TOKENS = 2, 128
_TRIALS = 200
_WARM_UPS = 5
_MOST_NOTICED_S, _MOST_BACK_S = 10.0, 60.0
"""For how long a trial is waited for; longer ones have failed."""


class Setting(NamedTuple):
    """What is tried, how often."""

    pack: Pack
    trials: int
    seed: int
    mbit: float
    times: Times


class Trial(NamedTuple):
    """A fault, and what came of it. Times in seconds."""

    kind: str
    device: str
    share: float
    """When in the run it was, as a share of what runs usually take."""
    noticed_s: float | None
    """From the fault to when the controller's process knew of it; None where it did not."""
    told_s: float | None
    """The same to when its engine said so."""
    answer_s: float
    """What the run took in which it was."""
    usual_s: float
    """What runs take without a fault."""
    alone: bool
    """Whether the controller answered alone."""
    answers: int
    """Until both devices computed again."""
    wrong: int
    """Of these, with other bits."""
    back_s: float | None
    """From when the fault was undone to when the device computed again; None where it did not."""


def measure(setting: Setting) -> Iterator[Trial]:
    """Trial after trial, all in one home.

    Raises:
        RuntimeError: a process ended that should not have; says what it wrote.
    """
    rng = Random(setting.seed)
    texts = setting.pack.texts(_TEXTS, _TOKENS)
    with Lab(setting.pack, texts, mbit=setting.mbit, times=setting.times) as lab:
        lab.until_by(set(WORKERS), within_s=_MOST_BACK_S)
        usual_s = median([lab.answer().seconds for _ in range(_WARM_UPS)])
        for _ in range(setting.trials):
            kind, device = rng.choice(list(NOTICED_S)), rng.choice(WORKERS)
            yield _trial(lab, kind, device, rng.random(), usual_s)


def _trial(lab: Lab, kind: str, device: str, share: float, usual_s: float) -> Trial:
    before = replace(lab.counts)
    fault_s = lab.break_amid(kind, device, after_s=share * usual_s)
    amid = lab.answer_begun()
    noticed = lab.until_told(device, since_s=fault_s, within_s=_MOST_NOTICED_S)
    undone_s = lab.mend(kind, device)
    back_s = lab.until_by(set(WORKERS), within_s=_MOST_BACK_S)
    return Trial(
        kind,
        device,
        share,
        None if noticed is None else noticed.lost_s - fault_s,
        None if noticed is None else noticed.told_s - fault_s,
        amid.seconds,
        usual_s,
        not amid.devices,
        lab.counts.answers - before.answers,
        lab.counts.wrong - before.wrong,
        None if back_s is None else back_s - undone_s,
    )


_COLUMNS = (
    Column("fault"),
    Column("trials", "d"),
    Column("noticed after s, median", ".3f"),
    Column("latest", ".3f"),
    Column("limit", "g"),
    Column("told after s, latest", ".3f"),
    Column("answer s, usual", ".3f"),
    Column("amid a fault, median", ".3f"),
    Column("slowest", ".3f"),
    Column("alone", "d"),
    Column("answers", "d"),
    Column("wrong", "d"),
    Column("used again after s, median", ".2f"),
    Column("latest use", ".2f"),
)


def summarize(trials: Sequence[Trial]) -> Summary:
    """By kind of fault."""
    found = Summary()
    table = Table("Faults amid runs", _COLUMNS)
    for kind, limit_s in NOTICED_S.items():
        mine = [trial for trial in trials if trial.kind == kind]
        if not mine:
            continue
        noticed = [item.noticed_s for item in mine if item.noticed_s is not None]
        back = [item.back_s for item in mine if item.back_s is not None]
        amid = [item.answer_s for item in mine]
        table.rows.append(
            (
                kind,
                len(mine),
                median(noticed) if noticed else None,
                max(noticed, default=None),
                limit_s,
                max((item.told_s for item in mine if item.told_s is not None), default=None),
                median([item.usual_s for item in mine]),
                median(amid),
                max(amid),
                sum(item.alone for item in mine),
                sum(item.answers for item in mine),
                sum(item.wrong for item in mine),
                median(back) if back else None,
                max(back, default=None),
            )
        )
        found.limits.append(at_most(f"{kind}: noticed after s", max(noticed, default=99), limit_s))
        found.limits.append(at_least(f"{kind}: noticed, of {len(mine)}", len(noticed), len(mine)))
        found.limits.append(at_least(f"{kind}: used again, of {len(mine)}", len(back), len(mine)))
    answers, wrong = sum(item.answers for item in trials), sum(item.wrong for item in trials)
    found.limits.append(at_most(f"wrong answers, of {answers}", wrong, 0))
    found.limits.append(reported("trials", len(trials)))
    found.tables.append(table)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser("devices_faults", __doc__, "--trials 20 --json faults.json")
    parser.add_argument("pack", type=Path, metavar="PACK", nargs="?", default=PACK)
    parser.add_argument("--trials", type=common.positive, default=_TRIALS, help="default: 200")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn; default: 0")
    parser.add_argument("--mbit", type=float, default=200.0, help="of each link; default: 200")
    parser.add_argument("--json", type=Path, metavar="FILE", help="written at the end")
    options = parser.parse_args(arguments)

    def measured() -> Report:
        report = Report("Faults of several devices", common.about_machine())
        with tempfile.TemporaryDirectory(prefix="sti-profiles-") as place:
            pack = Pack.measured(options.pack, Path(place))
            setting = Setting(pack, options.trials, options.seed, options.mbit, Times())
            report.about.append(
                f"{pack.path.name}, {_TEXTS} texts of {_TOKENS} tokens; workers {Times().worker:g} "
                f"and controller {Times().controller:g} times slower; links of {options.mbit:g} "
                "Mbit/s"
            )
            for _ in measure_rows(report, {"faults": ROW}, setting, options.json):
                report.notes.append(f"load of the machine at the end: {os.getloadavg()[0]:.2f}")
        return report

    return common.print_report(parser, options, measured)


ROW: Row[Setting] = Row(measure, summarize)

if __name__ == "__main__":
    sys.exit(main())
