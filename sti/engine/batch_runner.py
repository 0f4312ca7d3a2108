"""Answering one batch: a plan is chosen for it, run, and learned from.

In: texts with their tokens, and when they came. Out: ``Result``. Knows nothing of what happens
between runs, or of who else wants the engine: its lock is held, and no other run is at work.
"""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from sti.device.lanes import COMPUTE
from sti.engine.current_plans import CurrentPlans
from sti.engine.history_log import HistoryLog
from sti.engine.inputs import Batch
from sti.engine.options import EngineOptions
from sti.engine.prepared import PreparedPlan
from sti.engine.results import Result, make_result
from sti.engine.untold import Untold
from sti.errors import GraphError
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Mode, Outcome, Runner
from sti.pipeline.trace import PLAN, TOKENIZE, Recorder
from sti.planning.plan import Plan

if TYPE_CHECKING:
    from sti.engine.several_devices import SeveralDevices


class Arrival(NamedTuple):
    """When a batch came, as ``perf_counter`` tells: its answer is due a latency after that."""

    arrived: float
    tokenized: float
    """When planning began."""


class BatchRunner:
    """Answers the batches of one engine.

    Args:
        reader: the open pack.
        runner: runs plans.
        plans: chooses them, and what is held of them.
        options: say what a run may leave out.
        history: told of runs; None where they are not kept.
        devices: others that may compute; None where there are none.
    """

    def __init__(
        self,
        reader: PackReader,
        runner: Runner,
        plans: CurrentPlans,
        options: EngineOptions,
        history: HistoryLog | None,
        devices: SeveralDevices | None = None,
    ) -> None:
        self._devices = devices
        self._manifest, self._runner, self._plans = reader.manifest, runner, plans
        self._options, self._history = options, history
        self._untold = Untold(reader)

    def answer(self, batch: Batch, mode: Mode, when: Arrival) -> Result:
        """Run a batch, and let what is held follow.

        Raises:
            As ``Engine.run``.
        """
        try:
            prepared, outcome, held = self._run(batch, mode, when)
        except GraphError:  # its files were changed: nothing that was computed with them is used
            graph = self._plans.held.graph
            assert graph is not None, "the plan was run through it"
            graph.was_changed()
            prepared, outcome, held = self._run(batch, mode, when)
        ended = perf_counter()
        result = make_result(
            self._manifest,
            batch,
            prepared.plan,
            outcome,
            total_s=ended - when.arrived,
            notices=self._untold.take(),
        )
        told = self._plans.told_of(prepared)
        if self._devices is not None:
            told += self._devices.ended()
        if mode == "planned":
            run_s = ended - when.arrived - result.timing.plan_s
            told += self._plans.learn(prepared, result, run_s, held=held)
            if self._history is not None:
                self._history.note(prepared.plan, result)
        self._plans.held.follow(prepared)
        return replace(result, notices=(*result.notices, *told))

    def due(self, plan: Plan, arrived: float) -> float | None:
        """When an answer is due, if that may change how its plan runs."""
        # A plan that was given is run as it is, so that it gives its answer again.
        if plan.target.latency_s is None or self._plans.target.plan is not None:
            return None
        return arrived + plan.target.latency_s

    def _run(self, batch: Batch, mode: Mode, when: Arrival) -> tuple[PreparedPlan, Outcome, bool]:
        """Choose a plan and run it: the plan, what it gave, whether what it wants held was.

        Raises:
            GraphError: a file of the graph that it is run through was changed meanwhile.
        """
        recorder = Recorder(when.arrived)
        recorder.add(COMPUTE, TOKENIZE, when.arrived, when.tokenized)
        prepared = self._plan_for(batch)
        if mode != "planned":
            prepared = prepared._replace(graph=None)  # streamed, which takes other memory
        recorder.add(COMPUTE, PLAN, when.tokenized, perf_counter())
        prepared = self._with_room(prepared, batch)
        plan, encodings = prepared.plan, batch.encodings
        if self._plans.target.plan is not None:
            self._untold.note_length(plan, batch)
        due = self.due(plan, when.arrived)
        if self._devices is not None and mode == "planned":
            chain = self._devices.run(prepared, batch, recorder, due)
            if chain is not None:
                # What this machine would take alone says nothing of such a run.
                return prepared._replace(plan=chain.plan, basis=None), chain.outcome, True
        adapt = self._options.adaptation(self._manifest.task, due, plan.target.floor)
        held = self._plans.held.is_held(prepared)
        with self._untold.watching():
            if prepared.graph is not None:
                outcome = self._runner.run_graph(prepared.graph, encodings, recorder=recorder)
            else:
                outcome = self._runner.run(
                    prepared.jobs, plan, encodings, mode=mode, recorder=recorder, adapt=adapt
                )
        return prepared, outcome, held

    def _plan_for(self, batch: Batch) -> PreparedPlan:
        return self._plans.plan_for(batch=len(batch.texts), tokens=batch.mean_tokens, running=True)

    def _with_room(self, prepared: PreparedPlan, batch: Batch) -> PreparedPlan:
        """The plan as it fits in memory."""
        room = self._plans.held.make_room(prepared, batch.lengths)
        if room is None:  # the graph gave way, and another plan streams better
            room = self._plans.held.make_room(self._plan_for(batch), batch.lengths)
        assert room is not None, "there is no graph any more"
        return room
