"""``sti plan``: the plan, its timeline and its expected accuracy, without running it.

In: parsed arguments. Out: a table with a row per step, or the plan as JSON, which ``sti run --plan
FILE`` executes; with ``--explain`` also why the plan is as it is (``sti.cli.explain``).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sti.cli.planned import Made, Planning, open_planning
from sti.cli.program import print_json, say
from sti.cli.reports import check_writable
from sti.cli.strategies import table, to_json
from sti.device.lanes import LANES, LaneThreads, same_work
from sti.device.profile import DeviceProfile
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError
from sti.model.fidelity import fidelities
from sti.model.group_layout import group_ranges
from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.planning.memory import MemoryPart, total_size
from sti.planning.plan import NARROW, Plan, PlanStep, Prediction, Target
from sti.planning.prediction import mean_bits
from sti.planning.span import Span
from sti.report.tables import aligned
from sti.report.wording import counted, show_metric
from sti.storage.atomic_file import write_file
from sti.storage.byte_ranges import total_bytes
from sti.units import exact_share, exact_time, format_size, format_time

MORE_TIME = (1.25, 1.5, 2.0, 3.0)
"""Multiples of the latency whose gain in quality is shown."""
WORTH = 1e-3
"""Smaller gains of the metric are not shown."""
_LEFT = 0.02
"""Of what an engine takes: less than this that is left of its budget is not spoken of."""


def execute(args: argparse.Namespace) -> None:
    """Make the plan for a workload, show it, and save it in ``--output``."""
    if args.output is not None:
        check_writable(Path(args.output), apart=args.pack)
    with open_planning(args) as planning:
        made = planning.made()
        quality = made.manifest.quality
        gains = [] if quality is None or args.json else _gains(made, planning, quality)
        strategies = planning.strategies()
        explained = None
        if args.explain:
            from sti.cli.explain import explain  # takes longer than to plan

            explained = explain(made, planning)
    if args.output is not None:
        write_file(args.output, made.plan.to_text())
        say(f"saved to {args.output}; `--plan {args.output}` runs it")
    if args.json:
        members: dict[str, Any] = {} if explained is None else {"explanation": explained.to_json()}
        if strategies is not None:
            members["strategies"] = to_json(*strategies)
        print_json(made.plan.to_json() | {"memory": _memory_json(made)} | members)
        return
    print(_heading(made.plan, made.manifest, made.profile, made.memory))
    print(_table(made.plan, made.manifest))
    print(_summary(made))
    if quality is not None:
        print(_expected(made, quality, gains))
    if made.memory is not None:
        print(_memory(made.plan, made.memory))
    if strategies is not None:
        print(f"\n{table(*strategies)}", end="")
    if explained is not None:
        print(f"\n{explained.to_text()}")


def _memory_json(made: Made) -> list[dict[str, Any]] | None:
    return None if made.memory is None else [part._asdict() for part in made.memory]


def _heading(
    plan: Plan,
    manifest: Manifest,
    profile: DeviceProfile,
    memory: Sequence[MemoryPart] | None,
) -> str:
    work, target = plan.workload, plan.target
    asked = "best quality" if target.latency_s is None else format_time(target.latency_s)
    return (
        f"{manifest.name}: {plan.depth} of {counted(manifest.dimensions.layers, 'layer')}, "
        f"{plan.width} of {counted(manifest.dimensions.slices, 'slice')}, "
        f"ladder {', '.join(map(str, manifest.ladder))} bits\n"
        f"workload: {counted(work.batch, 'text')} of up to {counted(work.tokens, 'token')}; "
        f"target: {asked}, {_held(target, memory)}\n"
        f"device: {profile.device}; {_threads(plan.threads)}{_narrow(plan)}\n"
    )


def _held(target: Target, memory: Sequence[MemoryPart] | None) -> str:
    preload = f"preload {format_size(target.preload_bytes)}"
    if target.memory_bytes is None:
        return preload
    if any(part.mapped for part in memory or ()):
        return f"memory {format_size(target.memory_bytes)}, which holds all weights as a graph"
    return f"memory {format_size(target.memory_bytes)}, which leaves a {preload}"


def _threads(threads: LaneThreads) -> str:
    """Who reads, decodes and computes, in words."""
    if threads.name != "shared":
        return threads.name
    return f"{counted(threads.compute, 'thread')} decode and compute beside storage"


def _narrow(plan: Plan) -> str:
    """How many steps round their weights to 7 bits, where any do."""
    count = sum(step.variant == NARROW for step in plan.steps)
    return f"; {count} of {counted(len(plan.steps), 'step')} narrow" if count else ""


def _table(plan: Plan, manifest: Manifest) -> str:
    assert plan.predicted is not None
    header = ["layer", "block", "group", "slices at bits", "bytes", "preload"]
    rows = [_row(item, plan.predicted, manifest) for item in plan.steps]
    return aligned([*header, *(f"{lane} ms" for lane in LANES)], rows)


def _row(item: PlanStep, predicted: Prediction, manifest: Manifest) -> list[str]:
    group = manifest.group(item.layer, item.kind, item.group)
    counted = Counter(bits for bits in fidelities(group, item.counts) if bits)
    size = total_bytes(group_ranges(group, item.counts))
    return [
        str(item.layer),
        item.kind,
        str(item.group),
        " ".join(f"{count}@{bits}" for bits, count in sorted(counted.items(), reverse=True)),
        format_size(size),
        format_size(item.preload_bytes) if item.preload_bytes else "-",
        *(_span(_whole(predicted, lane, item.name)) for lane in LANES),
    ]


def _whole(predicted: Prediction, work: str, name: str) -> Span | None:
    """From when until when threads do this work on a step; None where none does."""
    found = [
        span
        for lane in predicted.lanes
        if same_work(lane, work)
        for span in predicted.lanes[lane]
        if span.name == name
    ]
    if not found:
        return None
    return Span(min(span.start_s for span in found), max(span.end_s for span in found), name)


def _span(span: Span | None) -> str:
    if span is None:
        return "-"
    return f"{span.start_s * 1e3:.1f}-{span.end_s * 1e3:.1f}"


def _summary(made: Made) -> str:
    plan, manifest, predicted = made.plan, made.manifest, made.plan.predicted
    assert predicted is not None
    preload = sum(item.preload_bytes for item in plan.steps)
    quantile = plan.target.quantile
    within_s = predicted.total_s * made.shown.spread(plan.threads)
    busy = ", ".join(f"{lane} {format_time(seconds)}" for lane, seconds in predicted.busy_s.items())
    return (
        f"predicted {format_time(predicted.total_s)}: {busy}, "
        f"stall {format_time(predicted.stall_s)}\n"
        f"{exact_share(quantile)} of the runs within {format_time(within_s)}\n"
        f"reads {format_size(predicted.bytes_read)} a run, holds {format_size(preload)}; "
        f"{mean_bits(manifest, plan):.2f} bits per weight on average; "
        f"expected loss {predicted.loss:.4g}\n"
        f"limited by {predicted.limited_by}"
    )


def _expected(made: Made, quality: Quality, gains: list[tuple[float, float]]) -> str:
    """The metric to expect, and what more time would gain."""
    predicted = made.plan.predicted
    assert predicted is not None
    estimate = predicted.quality or quality.estimate(predicted.loss)
    full = quality.estimate(0.0).value

    def show(value: float) -> str:
        return show_metric(quality.metric, value)

    below = full - estimate.value
    points = show_metric(quality.metric, below, difference=True)
    lost = f"{points} below" if below >= WORTH / 2 else "the same as"
    known = (
        f"expected {quality.metric} {show(estimate.value)} (95 times in 100 between "
        f"{show(estimate.low)} and {show(estimate.high)}), "
        f"{lost} the full model's {show(full)}"
    )
    if not gains:
        return known
    offers = ", ".join(f"{show(value)} in {format_time(asked)}" for asked, value in gains)
    return f"{known}\nwith more time: {offers}"


def _memory(plan: Plan, parts: Sequence[MemoryPart]) -> str:
    """What an engine takes that runs the plan, by part, and of which budget."""
    shown = ", ".join(f"{part.name} {format_size(part.size)}" for part in parts if part.size)
    limit = plan.target.memory_bytes
    of = "" if limit is None else f" of {format_size(limit)}"
    said = f"memory {format_size(total_size(parts))}{of}: {shown}"
    if any(part.mapped for part in parts):
        return (
            f"{said}\nthe weights of the graph are mapped from a cache file; the table shows the "
            "plan as it is streamed until the graph is there; runs through it take less"
        )
    left = 0 if limit is None else limit - total_size(parts)
    if left > total_size(parts) * _LEFT:
        return f"{said}\nthe {format_size(left)} that are left are for longer texts"
    return said


def _gains(made: Made, planning: Planning, quality: Quality) -> list[tuple[float, float]]:
    """Longer latencies with the metric to expect, where that is worth showing."""
    latency_s, predicted = made.plan.target.latency_s, made.plan.predicted
    if not made.free or latency_s is None or predicted is None:
        return []
    best, found = quality.estimate(predicted.loss).value, []
    for share in MORE_TIME:
        longer = TargetSpec(latency=exact_time(latency_s * share))
        with suppress(InfeasibleError):  # a preload that no longer fits, say
            planned = planning.made(made.target.overridden(longer)).plan.predicted
            assert planned is not None, "what is planned for a latency is predicted"
            value = quality.estimate(planned.loss).value
            if value >= best + WORTH:
                found.append((latency_s * share, value))
                best = value
    return found
