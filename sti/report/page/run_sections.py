"""The sections of a page about this machine and its runs: measured, memory, targets kept. Pure.

In: what the page says. Out: parts of HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from sti.device.lanes import LaneThreads
from sti.planning.history import DayRuns, KeptTarget, added, percentile_s, plan_name
from sti.report.page.facts import PageFacts
from sti.report.page.figures import DayPoint, kept_figure, memory_figure, timeline_figure
from sti.report.page.html import (
    Part,
    element,
    folded,
    of_hundred,
    paragraph,
    section,
    table,
    text,
)
from sti.report.wording import counted
from sti.units import format_size, format_time

_SHOWN = 10
"""Rows of days that are not folded."""


def measured_section(facts: PageFacts) -> Part:
    """When each lane worked in the last run."""
    heading = "The run as measured"
    last = facts.kept.history.last
    if last is None:
        return section("measured", heading, *_never_run(facts))
    same = last.plan == plan_name(facts.plan)
    which = "under the plan of this page"
    if not same:
        which = (
            f"under another plan than that of this page: {_target_words(last.target)}, "
            f"{last.workload.words}, {counted(last.depth, 'layer')}, {counted(last.width, 'slice')}"
        )
    predicted = ""
    if last.predicted_s is not None:
        predicted = f" Its prediction was {format_time(last.predicted_s)}."
    said = (
        f"The last run of this pack on this machine took {format_time(last.total_s)}, {which}. "
        f"It ended {facts.kept.last_at}.{predicted}"
    )
    if not any(span.end_s for spans in last.lanes.values() for span in spans):
        return section(
            "measured", heading, paragraph(said, "It was too long for its timeline to be kept.")
        )
    drawn = timeline_figure(last.lanes, "Timeline, measured")
    return section("measured", heading, paragraph(said), drawn)


def _never_run(facts: PageFacts) -> list[Part]:
    if facts.kept.note:
        return [paragraph(facts.kept.note)]
    said = "This pack was not run on this machine yet, so nothing was measured. This runs it:"
    command = element("code", text(facts.run_command))
    return [paragraph(said), element("pre", command, class_="scroll", tabindex="0")]


def memory_section(facts: PageFacts) -> Part:
    """What the plan takes of memory."""
    own = sum(part.size for part in facts.memory if not part.mapped)
    mapped = sum(part.size for part in facts.memory if part.mapped)
    beside = ""
    if mapped:
        beside = (
            f"; {format_size(mapped)} more are mapped from a file, and the system takes them back "
            "when it needs memory"
        )
    said = (
        f"An engine with this plan adds about {format_size(own)} to its process, libraries "
        f"apart{beside}."
    )
    rows = [[part.name, format_size(part.size)] for part in facts.memory]
    return section(
        "memory",
        "Memory by part",
        paragraph(said),
        memory_figure(facts.memory),
        folded("The numbers", table("Memory", ["part", "size"], rows)),
    )


def machine_section(facts: PageFacts) -> Part:
    """The machine that all of this is about."""
    profile, plan = facts.machine.profile, facts.plan
    storage = profile.storage
    kind = "direct reads" if storage.direct else "buffered reads"
    state = "measured"
    if profile.provisional:
        state = (
            "provisional: other processes kept it busy meanwhile; `sti calibrate` measures again"
        )
    measured = f"{state}, {facts.machine.measured}" if facts.machine.measured else state
    found = {
        "Machine": profile.device,
        "Storage": f"{storage.bytes_per_s / 1e6:.0f} MB/s, {format_time(storage.request_s)} a "
        f"request, {kind}",
        "Threads": _threads_words(plan.threads),
        "Profile": measured,
    }
    facts_list = element(
        "dl",
        *(element("dt", text(name)) + element("dd", text(value)) for name, value in found.items()),
        class_="facts",
    )
    return section("machine", "This machine", facts_list)


def _threads_words(threads: LaneThreads) -> str:
    """Who reads, decodes and computes."""
    if not threads.storage:
        return "one, for everything"
    if not threads.decode:
        return f"one reads; {threads.compute} decode and compute"
    computes = "one computes" if threads.compute == 1 else f"{threads.compute} compute"
    return f"one reads, one decodes, {computes}, all at the same time"


def kept_section(facts: PageFacts, *, today: date) -> Part:
    """How targets were kept, day by day, until ``today``."""
    heading, days = "Targets kept over time", facts.kept.history.days
    if not days:
        return section("kept", heading, *_never_run(facts))
    target = KeptTarget.of(facts.plan.target)
    if all(day.target != target for day in days):
        runs = {day.target: 0 for day in days}
        for day in days:
            runs[day.target] += day.runs
        target = max(runs, key=lambda target: runs[target])
    those = [day for day in days if day.target == target]
    parts = [paragraph(_sum_words(target, those, own=target == KeptTarget.of(facts.plan.target)))]
    if len(those) > 1:
        points = [DayPoint((today - date.fromisoformat(day.day)).days, day) for day in those]
        parts.append(kept_figure(target, points))
    else:
        parts.append(paragraph("A drawing follows when there are two days to compare."))
    rows = [_row(day) for day in reversed(days)]
    header = ["day", "target", "runs", "in time", "half within", "95 of 100"]
    parts.append(table("Runs by day and target, the last days", header, rows[:_SHOWN]))
    if len(rows) > _SHOWN:
        older = table("Runs by day and target, earlier days", header, rows[_SHOWN:])
        parts.append(folded(f"{counted(len(rows) - _SHOWN, 'earlier row')}", older))
    return section("kept", heading, *parts)


def _sum_words(target: KeptTarget, days: Sequence[DayRuns], *, own: bool) -> str:
    """One sentence for all days of a target."""
    runs, inside = sum(day.runs for day in days), sum(day.inside for day in days)
    classes = added(day.classes for day in days)
    half, most = (format_time(percentile_s(classes, share)) for share in (0.5, 0.95))
    whose = "the target of this page" if own else "the target with the most runs"
    said = (
        f"{counted(runs, 'run')} since {days[0].day} under {whose}, {_target_words(target)}: half "
        f"took at most {half}, 95 of 100 at most {most}."
    )
    if target.latency_s is None:
        return said
    wanted = of_hundred(target.quantile)
    return f"{said} {100.0 * inside / runs:.1f} % were in time (wanted: {wanted})."


def _row(day: DayRuns) -> list[str]:
    in_time = "-" if day.target.latency_s is None else f"{100.0 * day.inside / day.runs:.1f} %"
    times = [format_time(day.percentile_s(share)) for share in (0.5, 0.95)]
    return [day.day, _target_words(day.target), str(day.runs), in_time, *times]


def _target_words(target: KeptTarget) -> str:
    latency = "no latency" if target.latency_s is None else format_time(target.latency_s)
    preload = f", preload {format_size(target.preload_bytes)}" if target.preload_bytes else ""
    if target.memory_bytes is not None:
        preload = f", memory {format_size(target.memory_bytes)}"
    return f"{latency}{preload}"
