"""What is held gives way before a run takes memory, and is compared with what the process takes."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

import sti
from sti.backend.onnxruntime import hidden_memory
from sti.engine.held_weights import HeldWeights
from sti.engine.memory_budget import MemoryBudget
from sti.engine.prepared import PreparedPlan
from sti.model.workload import Workload
from sti.pipeline.runner import Runner
from sti.planning.memory import OPENED, STATES, MemoryPart
from sti.storage.reader import aligned_buffer
from tests.support.counted_memory import MB, counted_memory
from tests.support.packs import PROFILE, tiny_pack

LIMIT, HELD = 40 * MB, 16 * MB
A_TOKEN = 10_000
"""Bytes of its hidden states."""
LONG = "the dog runs under the table " * 6
MIXED = ["a", "the cat", "the dog runs under the table", LONG, LONG]
"""Of several groups of one length each."""


class FakeRunner:
    """Holds weights, which it may be at filling; notes what it is asked for."""

    def __init__(self) -> None:
        self.preloading = self
        self.is_filling = False
        self.done: list[tuple[str, int]] = []

    @property
    def held_bytes(self) -> int:
        """What is to be dropped is not counted any more, what is to be read not yet."""
        return 0 if self.is_filling else HELD

    def hold_at_most(self, size: int) -> bool:
        self.done.append(("hold at most", size))
        return False

    def release_states(self) -> None:
        self.done.append(("release states", 0))

    def release(self) -> None:
        self.done.append(("release", 0))


class FakeBudget:
    """Counts an opened engine and its runs' hidden states, and finds no more than that."""

    def __init__(self, runner: FakeRunner) -> None:
        self._runner = runner
        self.runs_bytes = self.unknown_bytes = 0

    def fitting(self, prepared: PreparedPlan, groups: Sequence[Workload]) -> PreparedPlan:
        return prepared

    def parts(
        self, plan: object, groups: Sequence[Workload], *, as_graph: bool
    ) -> list[MemoryPart]:
        assert not as_graph
        states = sum(group.batch * group.tokens for group in groups) * A_TOKEN
        found = [MemoryPart(OPENED, 5 * MB), MemoryPart(STATES, states)]
        self.runs_bytes = 5 * MB + states
        return found

    @property
    def grown_bytes(self) -> int:
        """Dropped weights are there until the buffer is filled again."""
        return self.runs_bytes + HELD + self.unknown_bytes


def held_weights(
    held: int = HELD, unknown: int = 0
) -> tuple[HeldWeights, FakeRunner, PreparedPlan]:
    """Within a budget, with a plan of which so much is held; the process grew by more as well."""
    runner = FakeRunner()
    budget = FakeBudget(runner)
    budget.unknown_bytes = unknown
    target = SimpleNamespace(memory_bytes=LIMIT, preload_bytes=held)
    plan: Any = SimpleNamespace(target=target, steps=(SimpleNamespace(preload_bytes=held),))
    weights = HeldWeights(cast(Runner, runner), cast(MemoryBudget, budget))
    return weights, runner, PreparedPlan(plan, (), None)


@pytest.mark.parametrize("unknown", [0, 2 * MB, 9 * MB])
def test_what_long_texts_took_gives_way_to_what_is_not_known_of(unknown: int) -> None:
    held, runner, prepared = held_weights(0, unknown)
    for lengths, given_back in (([2800], False), ([10], unknown == 9 * MB), ([10], False)):
        runner.done.clear()
        held.make_room(prepared, lengths)
        assert ("release" in [name for name, _ in runner.done]) == given_back, lengths


def test_what_is_being_filled_is_not_taken_for_growth() -> None:
    held, runner, prepared = held_weights()
    held.make_room(prepared, [100])
    room = runner.done[-1]
    runner.is_filling = True
    held.make_room(prepared, [100])
    assert runner.done[-1] == room


def test_hidden_states_give_way_to_larger_ones_and_stay_for_smaller_ones() -> None:
    held, runner, prepared = held_weights()
    for lengths, released in (
        ([100], True),
        ([40], False),
        ([100], False),
        ([120], True),
        ([10, 120], True),  # a group more
        ([120, 10], False),
        ([8], False),
        ([120], True),  # the memory of the first group is too small for it
    ):
        runner.done.clear()
        held.make_room(prepared, lengths)
        names = [name for name, _ in runner.done]
        assert ("release states" in names) == released, lengths


class Buffers:
    """The memory for hidden states that is there, as it is made."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self._made = self._run = 0
        self.runs: dict[int, int] = {}
        """Of each buffer, the run that made it."""
        self.beside: list[int] = []
        """Bytes of earlier runs that were there when a buffer was made."""

    def make(self, size: int) -> NDArray[np.uint8]:
        others = (found for number, found in self.sizes.items() if self.runs[number] != self._run)
        self.beside.append(sum(others))
        found, number = aligned_buffer(size), self._made
        self._made += 1
        self.sizes[number], self.runs[number] = found.nbytes, self._run
        weakref.finalize(found, self.sizes.pop, number)
        return found

    def next_run(self) -> None:
        self._run += 1
        self.beside.clear()


@pytest.fixture
def buffers(monkeypatch: pytest.MonkeyPatch) -> Buffers:
    found = Buffers()
    monkeypatch.setattr(hidden_memory, "aligned_buffer", found.make)
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("target", [{"fidelity": 4}, {"latency": "10s"}], ids=str)
def test_no_hidden_states_of_earlier_texts_lie_beside_those_of_longer_ones(
    buffers: Buffers,
    target: dict[str, Any],
    threads: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted_memory(tmp_path, monkeypatch)
    asked = {"memory": "30MB", "preload": "20KB", "profile": PROFILE, "threads": threads, **target}
    with sti.Engine.open(tiny_pack(), **asked) as engine:
        for texts in (["a"], [LONG], MIXED, [LONG] * 9, ["a", LONG] * 4, ["a"]):
            buffers.next_run()
            engine.run(texts)
            assert buffers.beside == [0] * len(buffers.beside)
        assert not buffers.beside  # one that is short takes over what is there


def test_what_texts_of_another_shape_left_is_not_kept(
    buffers: Buffers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted_memory(tmp_path, monkeypatch)

    def taken(*batches: list[str]) -> int:
        with sti.Engine.open(
            tiny_pack(), memory="30MB", preload="20KB", profile=PROFILE, threads=1, fidelity=4
        ) as engine:
            for texts in batches:
                engine.run(texts)
            return sum(buffers.sizes.values())

    assert taken(MIXED, [LONG] * 9) == taken([LONG] * 9)
