"""How far the planner is from the best plan, and how long it takes.

    python -m benchmarks.planner_gap --instances 500 --seed 0

On random small models, most of them with curves from missing gains to loss, the best plan is known:
brute force is the planner's specification. On the shapes of real models it is not; there the
reference is the same search with far more labels, which takes minutes where the planner takes
milliseconds. Plans picked without a search (``benchmarks.picked_plans``) are compared with
those of the planner, on a pack that ships too. All else is made up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from unittest.mock import patch

from benchmarks import picked_plans
from benchmarks.common import LIMITS, Column, Report, Table, about_machine, at_most, parser
from sti.device.lanes import PIPELINED, SEQUENTIAL, shared
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.planning.plan import Target
from tests.support.brute_force import Instance, gap, random_instance, with_curves
from tests.support.synthetic import BERT_BASE, LADDER, MINILM, Shape, make_manifest, make_profile

EQUAL = 1e-9
"""Losses that differ by no more than this share are sums in another order."""
MOST_GAP = 0.005
MOST_S = {"BERT-base": 0.050, "MiniLM-L6": 0.020}
ELASTIC_S = 0.150
WHOLE_S = 0.002
SHAPES = {"BERT-base": BERT_BASE, "MiniLM-L6": MINILM}
KINDS = (SEQUENTIAL, PIPELINED, shared(2))
"""Threads that small models run under, one for each, and of which real shapes take the best."""
ROOM = (None, 1.02, 0.9, 0.6, 0.3, 0.1, 0.01)
"""Latencies: from what the lowest fidelity takes (0) to what the highest takes (1)."""
ELASTIC_SHARES = (0.9, 0.7, 0.5, 0.3, 0.15)
"""Latencies, as shares of what the whole model takes."""
ELASTIC_RATES = (1.2e9, 2e8)


def small_models(instances: int, seed: int) -> tuple[Table, float]:
    """The planner against brute force; also the largest gap."""
    rng = Random(seed)
    gaps = [gap(random_instance(rng, rng.choice(KINDS))) for _ in range(instances)]
    known = [value for value in gaps if value is not None]
    largest, mean = max(known, default=0.0), sum(known) / max(1, len(known))
    table = Table(
        "Random small models, against brute force",
        (
            Column("problems"),
            Column("both refuse"),
            Column("equal loss"),
            Column("worse"),
            Column("largest gap, %", ".3f"),
            Column("mean gap, %", ".4f"),
        ),
    )
    equal = sum(value <= EQUAL for value in known)
    refused = len(gaps) - len(known)
    worse = len(known) - equal
    table.rows.append((len(gaps), refused, equal, worse, 100.0 * largest, 100.0 * mean))
    return table, largest


def real_shapes(repeats: int, *, wide: bool) -> tuple[Table, dict[str, float]]:
    """Times and, against a wide search, losses; also the longest time of each shape."""
    table = Table(
        "Shapes of real models, 128 tokens, 2 MB of preload",
        (
            Column("shape"),
            Column("latency, ms", ".1f"),
            Column("loss", ".4f"),
            Column("limited by"),
            Column("threads"),
            Column("planning, ms", ".1f"),
            Column("loss over a wide search's, %", ".2f"),
        ),
    )
    longest = dict.fromkeys((*SHAPES, "everything fits"), 0.0)
    for name, shape in SHAPES.items():
        for room in ROOM:
            instance = _instance(shape, room)
            taken_s = min(_plan_s(instance) for _ in range(repeats))
            plan = instance.plan()
            predicted = plan.predicted
            assert predicted is not None
            kind = "everything fits" if predicted.limited_by == "quality" else name
            longest[kind] = max(longest[kind], taken_s)
            excess = None
            if wide and kind == name:
                with _wide_search():
                    best = instance.plan().predicted
                assert best is not None
                excess = 100.0 * (predicted.loss / best.loss - 1.0)
            latency_s = instance.target.latency_s
            asked = "none" if latency_s is None else latency_s * 1e3
            found = (predicted.loss, predicted.limited_by, plan.threads.name)
            table.rows.append((name, asked, *found, taken_s * 1e3, excess))
    return table, longest


def elastic(repeats: int) -> tuple[Table, float]:
    """Plans for a pack that vouches for every depth and width; also the longest time."""
    table = Table(
        "MiniLM-L6, 72 submodels with a curve each, 128 tokens, 2 MB of preload",
        (
            Column("latency, ms", ".1f"),
            Column("storage, MB/s", ".0f"),
            Column("depth"),
            Column("width"),
            Column("loss", ".4f"),
            Column("limited by"),
            Column("planning, ms", ".1f"),
        ),
    )
    longest = 0.0
    manifest = elastic_manifest(MINILM["layers"], MINILM["slices"], curves=True)
    for rate in ELASTIC_RATES:
        profile = make_profile(bytes_per_s=rate, kinds=KINDS)
        instance = Instance(manifest, profile, Workload(1, 128), Target(None, 2 << 20), 1)
        whole_s = instance.uniform_s(LADDER[-1])
        for share in ELASTIC_SHARES:
            timed = replace(instance, target=Target(share * whole_s, 2 << 20))
            taken_s = min(_plan_s(timed) for _ in range(repeats))
            plan = timed.plan()
            assert plan.predicted is not None
            longest = max(longest, taken_s)
            found = (plan.depth, plan.width, plan.predicted.loss, plan.predicted.limited_by)
            table.rows.append((share * whole_s * 1e3, rate / 1e6, *found, taken_s * 1e3))
    return table, longest


def elastic_manifest(layers: int, slices: int, *, curves: bool) -> Manifest:
    """MiniLM's shards, in every depth and width; what is cut off costs more the more it is."""
    sizes = [(n, m) for n in range(1, layers + 1) for m in range(1, slices + 1)][:-1]
    manifest = make_manifest(
        Random(1),
        layers=layers,
        slices=slices,
        ladder=LADDER,
        attention_weights=MINILM["attention_weights"],
        ffn_weights=MINILM["ffn_weights"],
        submodels=[(n, m, 3 * (1 - n / layers) ** 2 + 3 * (1 - m / slices) ** 2) for n, m in sizes],
        orders="ranked",
    )
    return with_curves(Random(3), manifest, share=1.0) if curves else manifest


def _instance(shape: Shape, room: float | None) -> Instance:
    manifest = make_manifest(Random(1), ladder=LADDER, orders="ranked", **shape)
    profile = make_profile(kinds=KINDS)
    instance = Instance(manifest, profile, Workload(1, 128), Target(None, 2 << 20), 3)
    if room is None:
        return instance
    low, high = instance.uniform_s(LADDER[0]), instance.uniform_s(LADDER[-1])
    latency_s = low + room * (high - low)
    return Instance(manifest, profile, instance.workload, Target(latency_s, 2 << 20), 3)


def _plan_s(instance: Instance) -> float:
    """Processor seconds of one plan: it runs on one thread, and the machine may be busy."""
    start = time.process_time()
    instance.plan()
    return time.process_time() - start


@contextmanager
def _wide_search() -> Iterator[None]:
    with (
        patch("sti.planning.beam_search.MOST_CANDIDATES", 2_000_000),
        patch("sti.planning.beam_search.MOST_CHOICES", 128),
        patch("sti.planning.beam_search.CLOSE", 0.2),
    ):
        yield


def main(arguments: list[str] | None = None) -> None:
    """Print the report."""
    made = parser("planner_gap", __doc__, "--instances 500 --seed 0")
    made.add_argument("--instances", type=int, default=500, help="default: 500")
    made.add_argument("--seed", type=int, default=0, help="default: 0")
    made.add_argument("--repeats", type=int, default=7, help="of each plan; the least counts")
    made.add_argument("--no-wide", action="store_true", help="leave the wide search out")
    made.add_argument(
        "--machines", type=int, default=16, help="made-up machines that plans are picked for"
    )
    options = made.parse_args(arguments)
    small, largest = small_models(options.instances, options.seed)
    shapes, longest = real_shapes(options.repeats, wide=not options.no_wide)
    many, elastic_s = elastic(options.repeats)
    lost, taken, worst = picked_plans.picked(options.repeats, options.machines)
    limits = Table("Limits", LIMITS)
    limits.rows.append(at_most("largest gap to brute force, %", 100.0 * largest, 100.0 * MOST_GAP))
    for name, limit in {**MOST_S, "everything fits": WHOLE_S}.items():
        limits.rows.append(at_most(f"planning, {name}, ms", longest[name] * 1e3, limit * 1e3))
    limits.rows.append(at_most("planning, 72 submodels, ms", elastic_s * 1e3, ELASTIC_S * 1e3))
    for name, key, scale, limit in (
        ("metric lost by picking, points", "lost", 1e2, picked_plans.MOST_LOST),
        ("pricing, ms", "pricing", 1e3, picked_plans.MOST_PRICING_S),
        ("choosing and its plan, intents, ms", "choosing", 1e3, picked_plans.MOST_CHOOSING_S),
    ):
        limits.rows.append(at_most(name, worst[key] * scale, limit * scale))
    report = Report(
        "Planner",
        about_machine(),
        [small, shapes, many, lost, taken, limits],
        ["planning times are processor time of one thread, the least of the repeats"],
    )
    report.print(options.output)


if __name__ == "__main__":
    main()
