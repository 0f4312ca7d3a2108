"""Roofline: the least a plan can take on each lane, from a machine's best rates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from sti.benchmark.roofline import Roofline, measure_roofline
from sti.device.emulated_storage import SlowReader, parse_storage
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import EXACT, NARROW, VARIANTS, PlanRequest
from sti.planning.uniform import uniform_plan
from sti.storage.file_reader import FileReader
from tests.support.synthetic import make_manifest

MANIFEST = make_manifest(Random(1), layers=2, slices=3)
WEIGHTS = sum(group.slices * group.shard_weights for group in MANIFEST.groups)

RATES = {EXACT: 4e9, NARROW: 10e9}


def test_every_lane_does_its_work_at_its_best_rate() -> None:
    roofline = Roofline(read_bytes=1e9, moved_bytes=2e9, products=RATES)
    plan = uniform_plan(PlanRequest(MANIFEST, "0123456789abcdef", Workload(2, 16)), bits=4)
    found = roofline.seconds(plan, MANIFEST, 500_000)
    assert found["storage"] == pytest.approx(500_000 / 1e9)
    assert found["decode"] == pytest.approx((500_000 + WEIGHTS) / 2e9)
    assert found["compute"] == pytest.approx(WEIGHTS * 32 / 4e9)


def test_what_is_preloaded_is_decoded_but_not_read() -> None:
    roofline = Roofline(read_bytes=1e9, moved_bytes=2e9, products=RATES)
    plan = uniform_plan(PlanRequest(MANIFEST, "0123456789abcdef", Workload(1, 16)), bits=4)
    first = plan.steps[0]._replace(preload_bytes=1000)
    held = replace(plan, steps=(first, *plan.steps[1:]))
    found, all_read = (roofline.seconds(item, MANIFEST, 9000) for item in (held, plan))
    assert found["storage"] == all_read["storage"]
    assert found["decode"] - all_read["decode"] == pytest.approx(1000 / 2e9)


def test_products_are_those_of_each_steps_variant() -> None:
    roofline = Roofline(read_bytes=1e9, moved_bytes=2e9, products=RATES)
    plan = uniform_plan(PlanRequest(MANIFEST, "0123456789abcdef", Workload(1, 16)), bits=4)
    first = plan.steps[0]
    group = MANIFEST.group(first.layer, first.kind, first.group)
    products = group.shard_weights * group.used(plan.width) * 16
    mixed = replace(plan, steps=(first._replace(variant=NARROW), *plan.steps[1:]))
    found, exact = (roofline.seconds(item, MANIFEST, 9000) for item in (mixed, plan))
    assert exact["compute"] - found["compute"] == pytest.approx(products * (1 / 4e9 - 1 / 10e9))
    assert {**found, "compute": 0.0} == {**exact, "compute": 0.0}


def test_rates_of_variants_are_told_where_they_differ() -> None:
    same = Roofline(read_bytes=1e9, moved_bytes=2e9, products={EXACT: 4e9, NARROW: 4e9})
    assert str(same) == "a thread reads 1.00 GB/s, moves 2.0 GB/s, 4 G int8 products/s"
    assert str(replace(same, products=RATES)) == f"{same}, narrow 10"


def test_rates_are_those_of_what_is_read_from(tiny_pack: Path) -> None:
    slow = parse_storage("2MB/s")
    storage = SlowReader(FileReader(tiny_pack), slow)
    try:
        with PackReader.open(tiny_pack) as reader:
            found = measure_roofline(reader, storage)
    finally:
        storage.close()
    assert found.read_bytes <= 2e6 * 1.01
    assert set(found.products) == set(VARIANTS)
    assert min(found.products.values()) > 1e6 and found.moved_bytes > 1e6
