"""``sti report``: one page about a pack on this machine, in a file of its own.

In: parsed arguments. Out: HTML in a file or on standard output, or what the page says as JSON.
Nothing is run: the plans are those of ``sti plan``, what was measured is what was kept of runs.
"""

from __future__ import annotations

import argparse
import shlex
import time
from contextlib import suppress
from datetime import date
from pathlib import Path

from sti.calibration.cache import HISTORY_VARIABLE, OFF, Cache, keeps_history
from sti.calibration.history_file import HistoryFile
from sti.calibration.parts import KeptParts
from sti.cli.explain import explain
from sti.cli.planned import Made, Planning, open_planning
from sti.cli.program import notice, print_json, say
from sti.cli.reports import check_writable
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError, InputError, ProfileError
from sti.pack.pack_reader import PackReader
from sti.planning.history import History
from sti.report.page.facts import FrontierPoint, KeptRuns, MachineFacts, PageFacts
from sti.report.page.page import GENERATOR, page
from sti.storage.atomic_file import write_file
from sti.units import exact_share, exact_size, exact_time
from sti.version import __version__

POINTS = 10
"""Latencies of the frontier."""
_ROOM = 1.001
"""What is asked for over what is needed, so that rounding refuses nothing."""
_ENDING = ".sti.safetensors"
STANDARD_OUTPUT = "-"


def execute(args: argparse.Namespace) -> None:
    """Plan, gather what is known, and write the page."""
    path = _output(args)
    with open_planning(args) as planning:
        facts = _facts(args, planning)
    document = page(facts, today=date.today())
    if path is not None:
        write_file(str(path), document)
        say(f"saved to {path}")
    if args.json:
        print_json({"output": None if path is None else str(path), **facts.to_json()})
    elif path is None:
        print(document, end="")


def _output(args: argparse.Namespace) -> Path | None:
    """Where the page goes; None: to standard output, or with ``--json`` nowhere.

    Raises:
        InputError: nothing can be written there, or there is a file that is no such page.
    """
    if args.output == STANDARD_OUTPUT:
        if args.json:
            raise InputError("--json and -o - exclude each other: both print; leave one out")
        return None
    if args.output is None and args.json:
        return None
    path = Path(args.output or f"{Path(args.pack).name.removesuffix(_ENDING)}.html")
    check_writable(path, apart=args.pack)
    if not args.force and path.is_file() and not _is_page(path):
        raise InputError(
            f"{path}: is no page of `sti report`; name another file with -o, or replace it with "
            "--force"
        )
    return path


def _is_page(path: Path) -> bool:
    """Whether a file is empty, or was made here."""
    with suppress(OSError), path.open("rb") as stream:
        head = stream.read(2000)
        return not head or GENERATOR.encode() in head
    return False


def _facts(args: argparse.Namespace, planning: Planning) -> PageFacts:
    made = planning.made()
    spread = made.shown.spread(made.plan.threads)
    assert made.plan.predicted is not None, "what is planned here has a prediction"
    with PackReader.open(args.pack) as reader:
        parts = KeptParts(reader, made.profile.threads, Cache()).load()
    return PageFacts(
        manifest=made.manifest,
        plan=made.plan,
        promised_s=made.plan.predicted.total_s * spread,
        explanation=explain(made, planning),
        frontier=_frontier(made, planning),
        memory=made.memory or (),
        machine=MachineFacts(made.profile, _when(parts.measured_at)),
        kept=_kept(made.plan.pack),
        run_command=_command(args),
        made=f"{_when(time.time())} by STI {__version__}",
    )


def _frontier(made: Made, planning: Planning) -> list[FrontierPoint]:
    """Plans for latencies from the least that can be kept to what the best plan takes."""
    best = planning.made(_aim(made, None))
    most_s = best.decided.promised_s(best.decided.run(best.manifest, best.plan)) * _ROOM
    least_s = most_s
    try:
        planning.made(_aim(made, 1e-6))
    except InfeasibleError as error:
        if error.limit == "latency":
            least_s = min(most_s, error.needed * _ROOM)
    points, asked_s = [], made.plan.target.latency_s
    if made.free and asked_s is not None:  # so that it lies on the line
        points.append(FrontierPoint(asked_s, made.plan))
    for number in range(POINTS):
        latency_s = least_s * (most_s / least_s) ** (number / (POINTS - 1))
        with suppress(InfeasibleError):  # a preload that does not fit, say
            points.append(FrontierPoint(latency_s, planning.made(_aim(made, latency_s)).plan))
        if least_s == most_s:
            break
    return sorted(points, key=lambda point: point.latency_s)


def _aim(made: Made, latency_s: float | None) -> TargetSpec:
    """The target of a plan with another latency, the planner free to choose."""
    target = made.plan.target
    given = target.preload_bytes if made.target.plan is not None else None
    return TargetSpec(
        latency=None if latency_s is None else exact_time(latency_s),
        memory=made.target.memory,
        preload=exact_size(given) if given else made.target.preload,
        quantile=exact_share(target.quantile),
    )


def _kept(pack_id: str) -> KeptRuns:
    """What was kept of the pack's runs."""
    note = ""
    try:
        history = HistoryFile(pack_id).read()
    except ProfileError as error:
        history, note = History(), f"What was kept of runs cannot be used: {error}."
        notice(str(error))
    if not history.days and not note and not keeps_history():
        note = f"How runs go is not kept, because {HISTORY_VARIABLE} is {OFF}."
    last = history.last
    return KeptRuns(history, note, "" if last is None else _when(last.ended_at))


def _command(args: argparse.Namespace) -> str:
    """What runs the pack under the target that was asked for."""
    names = (
        "latency",
        "memory",
        "preload",
        "quantile",
        "floor",
        "fidelity",
        "plan",
        "config",
        "target",
    )
    given = [(name, getattr(args, name)) for name in names]
    options = [part for name, value in given if value for part in (f"--{name}", str(value))]
    return shlex.join(["sti", "run", args.pack, "a text", *options])


def _when(seconds: float) -> str:
    """A time since the epoch for people; "" for 0, and for what is no time."""
    with suppress(OverflowError, ValueError, OSError):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else ""
    return ""
