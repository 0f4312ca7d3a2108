"""How good it is to pick one of a pack's staircases instead of searching, and how long it takes.

Part of ``benchmarks.planner_gap``: the intents pack with its own curve of accuracy, and shapes of
real models with a made-up one, over machines from slow to fast storage, decoding and computing,
with and without narrow products; preloads; and latencies from the least that is offered to what
everything takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

from benchmarks.common import ROOT, Column, Table
from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.choice import Terms, choose, fastest, plan_of, steps_of
from sti.planning.plan import PlanRequest, Target
from sti.planning.pricing import PriceList
from sti.planning.staircase_making import make_staircases
from sti.planning.staircases import Staircases
from sti.planning.variants import variants_of
from tests.support.staircases import KINDS, PACK, cells, machines
from tests.support.synthetic import BERT_BASE, LADDER, MINILM, make_manifest, make_profile

MOST_LOST, MOST_PRICING_S, MOST_CHOOSING_S = 0.003, 0.001, 0.001
INTENTS = ROOT / "models" / "clinc150-intents.sti.safetensors"
RANGE = 0.04
"""What the metric of a made-up model loses from the highest to the lowest fidelity."""
ROOMS = (0.0, 0.05, 0.15, 0.35, 0.6, 0.95)
"""Latencies: from the least that is offered (0) to what everything takes (1)."""
PRELOADS = (0, 1 << 20, 4 << 20)
WORKLOADS = (Workload(1, 32), Workload(1, 128))


def picked(repeats: int, most_machines: int) -> tuple[Table, Table, dict[str, float]]:
    """What picking loses, and what it takes; also the worst of each kind of number.

    Args:
        repeats: of each timing; the least counts.
        most_machines: of those that are compared on, with each kind of products.
    """
    lost = Table(
        "Plans picked from staircases, against the planner's",
        (
            Column("pack or shape"),
            Column("narrow products"),
            Column("plans"),
            Column("worst, points", ".3f"),
            Column("mean, points", ".3f"),
            Column("better than the planner's by at most, points", ".2f"),
        ),
    )
    taken = Table(
        "What picking takes, processor time",
        (
            Column("pack or shape"),
            Column("staircases"),
            Column("KB", ".0f"),
            Column("making, ms", ".0f"),
            Column("reading, ms", ".2f"),
            Column("price list, ms", ".2f"),
            Column("pricing, ms", ".2f"),
            Column("choosing, ms", ".3f"),
            Column("plan, ms", ".2f"),
        ),
    )
    worst = {"lost": 0.0, "pricing": 0.0, "choosing": 0.0}
    for name, manifest, quality in _models():
        staircases = make_staircases(manifest)
        row = _times(manifest, staircases, repeats)
        taken.rows.append((name, len(staircases), *row))
        worst["pricing"] = max(worst["pricing"], row[4] * 1e-3)
        if name == "intents":
            worst["choosing"] = (row[5] + row[6]) * 1e-3
        for narrow in (None, 0.7):
            found = [
                cell.lost
                for cell in cells(
                    manifest,
                    staircases,
                    quality,
                    islice(machines(narrow=narrow), most_machines),
                    WORKLOADS,
                    PRELOADS,
                    ROOMS,
                )
            ]
            mean = sum(found) / len(found)
            points = 100.0 * max(found), 100.0 * mean, -100.0 * min(found)
            lost.rows.append((name, "yes" if narrow else "no", len(found), *points))
            worst["lost"] = max(worst["lost"], *found)
    return lost, taken, worst


def _models() -> Iterator[tuple[str, Manifest, Quality]]:
    with PackReader.open(INTENTS) as reader:
        intents = reader.manifest
    assert intents.quality is not None
    yield "intents", intents, intents.quality
    for name, shape in (("MiniLM-L6", MINILM), ("BERT-base", BERT_BASE)):
        made = make_manifest(Random(1), ladder=LADDER, orders="ranked", **shape)
        made = made._replace(codebook=intents.codebook)
        most = float(make_staircases(made).loss.max())
        yield name, made, Quality("accuracy", 1000, 0.004, (0.0, most), (0.97, 0.97 - RANGE))


def _times(manifest: Manifest, staircases: Staircases, repeats: int) -> tuple[float, ...]:
    """Kilobytes, then milliseconds: of making, reading, price list, pricing, choosing, planning."""
    raw, profile, preload_bytes = staircases.to_bytes(manifest), make_profile(kinds=KINDS), 1 << 20
    list_ = PriceList(manifest, staircases)
    prices = list_.price(profile, WORKLOADS[1], preload_bytes)
    terms = Terms(None, {}, {}, float("inf"))
    least, whole = fastest(prices, terms), choose(prices, terms)
    assert least is not None
    assert whole is not None
    latency_s = 0.5 * (least.promised_s + whole.promised_s)
    terms = terms._replace(latency_s=latency_s)
    kept = choose(prices, terms)
    assert kept is not None
    request = PlanRequest(manifest, PACK, WORKLOADS[1], Target(latency_s, preload_bytes))
    work: tuple[Callable[[], object], ...] = (
        lambda: make_staircases(manifest),
        lambda: Staircases.from_bytes(raw, manifest, where="staircases"),
        lambda: PriceList(manifest, staircases),
        lambda: list_.price(profile, WORKLOADS[1], preload_bytes),
        lambda: choose(prices, terms, kept),
        lambda: plan_of(
            request,
            profile,
            kept,
            steps_of(
                manifest,
                staircases,
                kept.staircase,
                preload_bytes,
                variants_of(manifest, profile),
            ),
        ),
    )
    return len(raw) / 1e3, *(min(_ms(each) for _ in range(repeats)) for each in work)


def _ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)
