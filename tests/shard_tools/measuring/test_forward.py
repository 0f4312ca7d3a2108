"""``Forward`` answers as the engine does, and leaves out what it is told to leave out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import sti
from shard_tools.measuring.forward import Forward, Precision, precision_of, uniform_precision
from sti.device.lanes import PIPELINED
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan, PlanStep, Target
from tests.support.packs import PROFILE, TEXTS, tiny_pack

PAIRS = (("the dog", "runs"), ("a red house", "under the table"), ("cat", "a cat runs and runs"))
MANY = (*TEXTS, *(f"{text} {text} dog" for text in TEXTS), "the dog runs", "word " * 60) * 2


def random_plan(manifest: Manifest, pack_id: str, seed: int) -> Plan:
    """A staircase for each slice group, as the planner could choose it."""
    rng = np.random.default_rng(seed)
    dims = manifest.dimensions
    steps = []
    for group in manifest.groups:
        counts = np.sort(rng.integers(0, group.slices + 1, len(manifest.ladder)))[::-1]
        counts[0] = group.slices
        read = tuple(map(int, counts))
        steps.append(PlanStep(group.layer, group.kind, group.number, read, 0))
    sizes = (dims.layers, dims.slices, PIPELINED, 1)
    return Plan(pack_id, Workload(1, 8), Target(), *sizes, tuple(steps), None)


def whole(manifest: Manifest, bits: int) -> Precision:
    return uniform_precision(manifest, manifest.submodels[0], bits)


@pytest.fixture(scope="module")
def forward() -> Iterator[Forward]:
    reader = PackReader.open(tiny_pack("classification"))
    with reader, Forward(reader, threads=1) as forward:
        yield forward


@pytest.mark.parametrize("seed", range(3))
def test_it_answers_as_the_engine_to_the_bit(seed: int, forward: Forward) -> None:
    path = tiny_pack("classification")
    with PackReader.open(path) as reader:
        plan = random_plan(reader.manifest, reader.pack_id, seed)
    batches = forward.batches(MANY)
    found = forward.logits(batches, precision_of(plan, forward.manifest))
    noticed = pytest.warns(sti.StiWarning, match="48 tokens")
    with sti.Engine.open(path, plan=plan, threads=1, profile=PROFILE) as engine, noticed:
        expected = engine.run(MANY)
    assert (found == expected.logits).all()
    assert batches.truncated == expected.truncated == 2
    assert batches.count == len(MANY)


def test_pairs_of_texts_are_answered_as_the_engine_does() -> None:
    path = tiny_pack("regression")
    with PackReader.open(path) as reader, Forward(reader, threads=1) as forward:
        found = forward.logits(forward.batches(PAIRS), whole(reader.manifest, 3))
    with sti.Engine.open(path, fidelity=3, threads=1, profile=PROFILE) as engine:
        expected = engine.run(PAIRS)
    assert found.shape == (3, 1) and (found == expected.logits).all()


def test_a_run_goes_on_from_hidden_states(forward: Forward) -> None:
    batches, setting = forward.batches(MANY), whole(forward.manifest, 4)
    expected = forward.logits(batches, setting)
    for cut in range(len(setting)):
        states = forward.states(batches, setting[:cut])
        kept = [array.copy() for array in states]
        assert (forward.logits(batches, setting[cut:], start=states) == expected).all()
        assert all((a == b).all() for a, b in zip(states, kept, strict=True))


def without_last(setting: Precision) -> tuple[Precision, Precision]:
    """The same model twice: one slice narrower, and with its last slice left out."""
    narrow = tuple(replace(item, bits=item.bits[:-1]) for item in setting)
    return narrow, tuple(replace(item, bits=(*item.bits[:-1], 0)) for item in setting)


@pytest.mark.parametrize("saturates", [False, True])
def test_an_absent_slice_is_as_if_it_were_not_there(saturates: bool) -> None:
    reader = PackReader.open(tiny_pack("classification"))
    with reader, Forward(reader, threads=1, saturates=saturates) as forward:
        batches, setting = forward.batches(MANY), whole(reader.manifest, 6)
        before = forward.logits(batches, setting)
        narrow, left_out = without_last(setting)
        expected = forward.logits(batches, narrow)
        assert (forward.logits(batches, left_out) == expected).all()
        assert (forward.logits(batches, setting) == before).all()
        assert (before != expected).any()


@pytest.mark.parametrize("part", ["words", "block.1.ffn"])
def test_a_damaged_pack_is_refused(part: str, tmp_path: Path) -> None:
    data = bytearray(tiny_pack("classification").read_bytes())
    with PackReader.open(tiny_pack("classification")) as reader:
        place = reader.tensors()[part].offset
    data[place + 300] ^= 1
    if part == "words":  # only the rows of tokens that occur are read
        table = reader.manifest.embeddings
        for row in range(table.rows):
            data[place + row * table.row_bytes] ^= 1
    (tmp_path / "bad").write_bytes(data)
    refused = pytest.raises(sti.PackCorruptError, match="not match")
    reader = PackReader.open(tmp_path / "bad")
    with reader, Forward(reader, threads=1) as forward, refused:
        forward.logits(forward.batches(TEXTS), whole(reader.manifest, 8))
