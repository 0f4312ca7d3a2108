"""``sti plan``: what would be read and computed when, without running it.

In: parsed arguments. Out: a table a block, or the plan as JSON, which ``--plan`` pins again.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace

from sti.cli.output import workload_tokens, write_file
from sti.cli.run import open_engine
from sti.cli.tables import aligned
from sti.manifest import Manifest
from sti.plan import BlockPlan, BlockTimes, Plan, Span, fidelities
from sti.planner import predict
from sti.profile import DeviceProfile
from sti.reads import block_ranges, total_bytes
from sti.units import format_size, format_time


def execute(args: argparse.Namespace) -> None:
    """Make the plan for a workload, show it, and save it where asked to."""
    with open_engine(args) as engine:
        tokens = workload_tokens(args.tokens, engine.manifest)
        plan = engine.plan_for(tokens=tokens, batch=args.batch)
        manifest, profile = engine.manifest, engine.profile
    if plan.predicted is None:
        plan = replace(plan, predicted=predict(manifest, profile, plan))
    if args.output is not None:
        write_file(args.output, plan.save())
    if args.json:
        print(json.dumps(plan.to_json()))
        return
    print(_heading(plan, manifest, profile))
    print(_table(plan, manifest))
    print(_summary(plan, manifest, profile))
    if args.output is not None:
        print(f"saved to {args.output}; `--plan {args.output}` follows it")


def _heading(plan: Plan, manifest: Manifest, profile: DeviceProfile) -> str:
    work, target = plan.workload, plan.target
    asked = "best quality" if target.latency_s is None else format_time(target.latency_s)
    return (
        f"{manifest.name}: {plan.depth} of {manifest.dimensions.layers} layers, {plan.width} of "
        f"{manifest.dimensions.slices} slices, ladder {', '.join(map(str, manifest.ladder))} bits\n"
        f"workload: {work.batch} text{'s' * (work.batch > 1)} of up to {work.tokens} tokens; "
        f"target: {asked}, preload {format_size(target.preload_bytes)}\n"
        f"device: {profile.device}; {profile.threads} compute and {plan.decode_threads} decode "
        f"thread{'s' * (plan.decode_threads > 1)}\n"
    )


def _table(plan: Plan, manifest: Manifest) -> str:
    assert plan.predicted is not None
    header = ["layer", "block", "slices at bits", "bytes", "preload", "storage ms", "decode ms"]
    rows = [
        _row(item, times, manifest)
        for item, times in zip(plan.blocks, plan.predicted.blocks, strict=True)
    ]
    return aligned([*header, "compute ms"], rows)


def _row(item: BlockPlan, times: BlockTimes, manifest: Manifest) -> list[str]:
    block = next(b for b in manifest.blocks if (b.layer, b.kind) == (item.layer, item.kind))
    counted = Counter(bits for bits in fidelities(block, item.counts) if bits)
    size = total_bytes(block_ranges(block, item.counts))
    return [
        str(item.layer),
        item.kind,
        " ".join(f"{count}@{bits}" for bits, count in sorted(counted.items(), reverse=True)),
        format_size(size),
        format_size(item.preload_bytes) if item.preload_bytes else "-",
        *(_span(getattr(times, lane)) for lane in ("storage", "decode", "compute")),
    ]


def _span(span: Span) -> str:
    if span.end_s <= span.start_s:
        return "-"
    return f"{span.start_s * 1e3:.1f}-{span.end_s * 1e3:.1f}"


def _summary(plan: Plan, manifest: Manifest, profile: DeviceProfile) -> str:
    predicted = plan.predicted
    assert predicted is not None
    stored = {(block.layer, block.kind): block for block in manifest.blocks}
    weights = bits = 0
    for item in plan.blocks:
        block = stored[item.layer, item.kind]
        used = [value for value in fidelities(block, item.counts) if value]
        weights += block.shard_weights * len(used)
        bits += block.shard_weights * sum(used)
    preload = sum(item.preload_bytes for item in plan.blocks)
    return (
        f"predicted {format_time(predicted.total_s)}: storage {format_time(predicted.storage_s)}, "
        f"decode {format_time(predicted.decode_s)}, compute {format_time(predicted.compute_s)}, "
        f"stall {format_time(predicted.stall_s)}\n"
        f"95 of 100 runs within {format_time(predicted.total_s * profile.jitter)}\n"
        f"reads {format_size(predicted.bytes_read)} a run, holds {format_size(preload)}; "
        f"{bits / max(1, weights):.2f} bits a weight on average; "
        f"expected loss {predicted.loss:.4g}\n"
        f"limited by {predicted.limited_by}"
    )
