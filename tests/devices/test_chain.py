"""Chains over workers: the answers are those of one device, to the bit, however layers are cut."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from time import perf_counter
from typing import get_args

import numpy as np
import pytest

from shard_tools.packing.share import share
from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration.calibrate import measure
from sti.device.lanes import PIPELINED
from sti.errors import PeerError
from sti.model.workload import Workload
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.pipeline.trace import Recorder
from sti.planning.links import FLOAT16, FLOAT32, INT8
from sti.planning.plan import LOCAL, Plan, PlanRequest
from sti.planning.stages import CHAIN, Stage, layers_of, part_of
from sti.planning.strategies import Strategy
from sti.planning.uniform import uniform_plan
from sti.text.encoding import Encoding
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec
from tests.support.checkpoints import Task
from tests.support.devices import Devices, devices
from tests.support.packs import TEXTS, tiny_pack

MIXED = (*TEXTS, "the dog runs under the table " * 6)


def encodings(reader: PackReader) -> list[Encoding]:
    tokenizer = Tokenizer(
        TokenizerSpec.from_json(reader.manifest.tokenizer), reader.resident(VOCABULARY).tobytes()
    )
    return [tokenizer.encode(text) for text in MIXED]


def plan_of(reader: PackReader) -> Plan:
    request = PlanRequest(reader.manifest, reader.pack_id, Workload(8, 8))
    return replace(uniform_plan(request, bits=4), threads=PIPELINED)


def strategy_of(plan: Plan, stages: tuple[Stage, ...], units: int = 1) -> Strategy:
    parts = tuple(part_of(plan, stage) for stage in stages)
    return Strategy(CHAIN, stages, parts, units, Workload(8, 8), 1.0, {}, {}, 0)


def cut(plan: Plan, names: list[str]) -> list[tuple[Stage, ...]]:
    """Every cut of the plan's layers over these devices, in this order."""
    layers = layers_of(plan)
    found = []
    for ends in combinations(layers[:-1], len(names) - 1):
        bounds = [-1, *ends, layers[-1]]
        found.append(
            tuple(Stage(name, bounds[at] + 1, bounds[at + 1]) for at, name in enumerate(names))
        )
    return found


def alone(found: Devices, plan: Plan, texts: list[Encoding]) -> list[bytes]:
    outcome = found.here.runner.run(
        found.here.jobs(plan), plan, texts, mode="planned", recorder=Recorder(perf_counter())
    )
    return [row.tobytes() for row in outcome.outputs]


@pytest.mark.parametrize("names", [["a"], [LOCAL, "a"], ["a", LOCAL], ["a", "b"]], ids=str)
@pytest.mark.parametrize("units", [1, 3])
def test_chains_give_the_bits_of_one_device(names: list[str], units: int) -> None:
    with devices(tiny_pack(), ["a", "b"]) as found:
        plan, texts = plan_of(found.here.reader), encodings(found.here.reader)
        wanted = alone(found, plan, texts)
        for stages in cut(plan, names):
            strategy = strategy_of(plan, stages, units)
            outcome = found.chains.run(
                strategy,
                plan,
                texts,
                recorder=Recorder(perf_counter()),
                link_type=FLOAT32,
                within_s=30.0,
            )
            assert [row.tobytes() for row in outcome.outputs] == wanted
            assert min(2, units) <= len(outcome.reports) <= units
            assert all(set(report) == set(names) for report in outcome.reports)


@pytest.mark.parametrize("task", get_args(Task))
def test_answers_of_every_task_come_in_the_order_of_the_texts(task: Task) -> None:
    with devices(tiny_pack(task), ["a", "b"]) as found:
        plan, texts = plan_of(found.here.reader), encodings(found.here.reader)
        # More than one group has room for, of which not all have one of the longest texts.
        many = [text for text in texts for _ in range(60)]
        outcome = found.chains.run(
            strategy_of(plan, cut(plan, ["a", "b"])[0]),
            plan,
            many,
            recorder=Recorder(perf_counter()),
            link_type=FLOAT32,
            within_s=60.0,
        )
        assert [row.tobytes() for row in outcome.outputs] == alone(found, plan, many)


@pytest.mark.parametrize(("link_type", "most"), [(FLOAT16, 1e-3), (INT8, 2e-2)])
def test_hidden_states_may_travel_as_fewer_bits(link_type: str, most: float) -> None:
    with devices(tiny_pack(), ["a", "b"]) as found:
        plan, texts = plan_of(found.here.reader), encodings(found.here.reader)
        strategy = strategy_of(plan, cut(plan, ["a", "b"])[0])
        rows = found.chains.run(
            strategy,
            plan,
            texts,
            recorder=Recorder(perf_counter()),
            link_type=link_type,
            within_s=30.0,
        ).outputs
        wanted = [np.frombuffer(row, np.float32) for row in alone(found, plan, texts)]
        apart = max(float(np.abs(row - due).max()) for row, due in zip(rows, wanted, strict=True))
        assert 0.0 < apart < most


def test_workers_need_no_more_than_their_part(tmp_path: Path) -> None:
    parts = {"a": tmp_path / "front.sti.safetensors", "b": tmp_path / "back.sti.safetensors"}
    with PackReader.open(tiny_pack()) as pack:
        last = pack.manifest.dimensions.layers - 1
    share(tiny_pack(), parts["a"], 0, 0)
    share(tiny_pack(), parts["b"], 1, last)
    with devices(tiny_pack(), ["a", "b"], parts) as found:
        plan, texts = plan_of(found.here.reader), encodings(found.here.reader)
        strategy = strategy_of(plan, (Stage("a", 0, 0), Stage("b", 1, last)))
        outcome = found.chains.run(
            strategy,
            plan,
            texts,
            recorder=Recorder(perf_counter()),
            link_type=FLOAT32,
            within_s=30.0,
        )
        assert [row.tobytes() for row in outcome.outputs] == alone(found, plan, texts)
        other = strategy_of(plan, (Stage("a", 0, last),))
        with pytest.raises(PeerError, match=f"layers 0 to {last} are wanted, and its part has 0"):
            found.chains.run(
                other,
                plan,
                texts,
                recorder=Recorder(perf_counter()),
                link_type=FLOAT32,
                within_s=30.0,
            )


@pytest.mark.parametrize("layer", [0, 1])
def test_a_device_is_measured_with_its_part(tmp_path: Path, layer: int) -> None:
    part = tmp_path / "part.sti.safetensors"
    share(tiny_pack(), part, layer, layer)
    with PackReader.open(part) as reader:
        profile = measure(reader, OrtBackend(reader, lanes=1), threads=1, budget_s=0.3)
    assert {"attention", "ffn", "connect", "head"} <= set(profile.compute.graphs)
