"""What an engine holds of weights between runs, within its budget of memory.

In: the plan of each run, how its texts are grouped, whether memory is short. Effect: the preload
buffer holds the leading bytes of what is likely to run next, or a graph all of it; both give way to
runs that take more. Knows nothing of how plans are made. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

from sti.backend.onnxruntime.products import shrink_arena
from sti.device import host
from sti.engine.memory_budget import MemoryBudget, groups_of_texts, spare
from sti.engine.memory_taken import MemoryTaken
from sti.engine.prepared import PreparedPlan
from sti.pipeline.runner import Runner
from sti.planning.memory import total_size
from sti.planning.plan import PlanStep

if TYPE_CHECKING:
    from sti.engine.held_graph import HeldGraph


_LEAST_HELD = 1 << 16
"""Bytes that are worth filling the preload buffer for."""
_MOST_UNKNOWN = 4
"""What part of a budget may be taken by what is not known of."""


class HeldWeights:
    """The preload buffer and the graph of one engine.

    Args:
        runner: has the preload buffer.
        budget: counts the engine's memory.
    """

    def __init__(self, runner: Runner, budget: MemoryBudget) -> None:
        self._runner, self._budget = runner, budget
        self._preloading = runner.preloading
        self.graph: HeldGraph | None = None
        """Holds a plan as a graph; None where there can be none."""
        self._steps: tuple[PlanStep, ...] | None = None
        """Steps that the preload buffer is for."""
        self._ran: tuple[PlanStep, ...] | None = None
        """Steps of the last run."""
        self._holding: PreparedPlan | None = None
        """What the preload buffer was asked to hold last."""
        self._refill: PreparedPlan | None = None
        """What the preload buffer is to hold once memory is not short any more."""
        self._lean = False
        self._runs = MemoryTaken()
        self._short: tuple[tuple[PlanStep, ...], int | None] | None = None
        """Steps of which no more is held than there is room for, and how much that is."""

    @property
    def is_lean(self) -> bool:
        """Whether runs are without a preload buffer because memory is short."""
        return self._lean

    @property
    def refill_bytes(self) -> int:
        """Bytes that are to be held again when memory is not short any more."""
        graph = 0 if self.graph is None else self.graph.paused_size
        held = 0 if self._refill is None else sum(job.preload_bytes for job in self._refill.jobs)
        return held + graph

    @property
    def mapped_bytes(self) -> int:
        """Bytes of weights that are mapped from a graph's file now."""
        return 0 if self.graph is None else self.graph.mapped_bytes

    def aim(self, prepared: PreparedPlan, graph: PreparedPlan | None, *, again: bool) -> None:
        """Hold what another target wants held.

        Args:
            prepared: the plan to prepare for.
            graph: the plan to hold as a graph, if there is room for one.
            again: there was a target before, whose runs may have taken more than this one allows.
        """
        self._ran = self._refill = None
        if self.graph is not None:
            self.graph.want(graph, later=self._lean)
        if again and prepared.plan.target.memory_bytes is not None:
            self.trim()
            self._preloading.hold((), prepared.plan)  # nothing, and that is there
        self._hold(prepared)

    def wait(self, timeout_s: float | None) -> bool:
        """Wait until what is to be held is; as ``Engine.preloaded``. Any thread."""
        end = None if timeout_s is None else perf_counter() + timeout_s
        if self.graph is not None:
            if self.graph.wait(timeout_s):
                return True
            if self.graph.is_forgotten:
                return False
        left = None if end is None else max(0.0, end - perf_counter())
        return self._preloading.wait_held(left)

    def close(self) -> None:
        """End what is built or opened. Idempotent."""
        if self.graph is not None:
            self.graph.close()

    def follow(self, prepared: PreparedPlan) -> None:
        """Let what is held follow the plan of a run, if that changes anything.

        It follows what was run twice: refilled for each of texts of different lengths it would
        hold nothing for the next one.
        """
        limit, graph = prepared.plan.target.memory_bytes, self.graph
        if graph is not None and limit is not None:
            due = graph.has_run() and not self._lean and not graph.size
            if due:
                plan = prepared.plan
                needed = self._budget.needed(plan, (plan.workload,), as_graph=True)
                due = needed + graph.wanted_size <= limit
            graph.fill(wanted=due)
        if prepared.graph is not None:
            return
        steps = prepared.plan.steps
        again, self._ran = steps == self._ran, steps
        if again or self._steps in (None, steps):
            self._hold(prepared)

    def is_held(self, prepared: PreparedPlan) -> bool:
        """Whether the preload buffer holds what a plan wants held."""
        plan = prepared.plan
        if not plan.target.preload_bytes or (
            plan.steps == self._steps and self._preloading.is_filled
        ):
            return True
        return self._preloading.holds(prepared.jobs)

    def make_room(self, prepared: PreparedPlan, lengths: Sequence[int]) -> PreparedPlan | None:
        """Let a run of texts with so many tokens keep the budget of memory, if there is one.

        What is held gives way to it; where it takes less than runs before, what those took is given
        back, so that as much can be held again.

        Args:
            prepared: the plan of the run.
            lengths: tokens of each text.

        Returns:
            The plan to run: the same, or the same on one thread; None where it was to run through
            the graph, and that had to give way: choose anew.

        Raises:
            InfeasibleError: the texts take more than the budget.
        """
        limit = prepared.plan.target.memory_bytes
        if limit is None:
            return prepared
        self._look(limit)
        groups, as_graph = groups_of_texts(lengths), prepared.graph is not None
        if not as_graph:
            prepared = self._budget.fitting(prepared, groups)
        parts = self._budget.parts(prepared.plan, groups, as_graph=as_graph)
        needed = total_size(parts)
        wanted = sum(step.preload_bytes for step in prepared.plan.steps)
        graph = self.graph
        if graph is not None and graph.wanted_size:
            wanted = graph.wanted_size
        after = partial(self._runs.after, parts, groups)
        if self._trims_for(limit, wanted, needed, after) and as_graph:
            return None
        if graph is not None and graph.size and after() + graph.size > limit:
            graph.release()
            self._trim_free()
            if as_graph:
                return None
        if not self._runs.has_states(groups):
            self._runner.release_states()
            self._runs.states_are_given_back()
        self._runs.note(parts, groups)
        self._hold_at_most(self._room(limit))
        return prepared

    def make_way(self) -> None:
        """Let the graph be opened: its runs need nothing of what streamed ones take."""
        self._runner.release()
        self._runs.all_is_given_back()
        self._steps = self._short = None
        self._trim_free()

    def trim(self) -> None:
        """Give back the memory of runs, and what is held."""
        if self.graph is not None:
            self.graph.release()
        self.make_way()

    def release(self) -> None:
        """Give back all of that until the next run. No run may be at work."""
        self._ran = self._holding = None
        if self.graph is not None:
            self.graph.forget()
        self.trim()

    def give_preload_back(self) -> int:
        """Give back the preload buffer and the graph, and do without them until ``fill_again``. No
        run may be at work.

        Returns:
            The bytes that they held.
        """
        held, holding = self._preloading.held_bytes, self._holding
        self._lean = True
        if self.graph is not None:
            held += self.graph.size
            self.graph.pause()
        if self._steps is not None and holding is not None and holding.plan.target.preload_bytes:
            self._refill, self._steps = holding, None
            self._preloading.release_held()
        return held

    def fill_again(self) -> None:
        """Have a preload buffer and a graph again, filled and opened in the background."""
        refill, self._refill, self._lean = self._refill, None, False
        if refill is not None:
            self._hold(refill)
        if self.graph is not None:
            self.graph.fill()

    def forget_refill(self) -> None:
        """What is held is filled for the next run, whenever that comes."""
        self._refill = None
        if self.graph is not None:
            self.graph.forget()

    def _look(self, limit: int) -> None:
        """See what the process grew by that is not known of: all that is held gives way to it."""
        if self._preloading.is_filling:
            return  # what is being dropped or read would look like growth
        grown = self._budget.grown_bytes
        if grown is not None:
            session = 0 if self.graph is None else self.graph.session_size
            beside = self._preloading.held_bytes + session
            self._runs.compare(grown, beside, limit // _MOST_UNKNOWN)

    def _room(self, limit: int) -> int:
        """Bytes that may hold weights beside what runs take."""
        return limit - spare(limit) - self._runs.unknown - self._runs.taken

    def _hold_at_most(self, size: int) -> None:
        """Let the preload buffer hold no more, what a graph takes counted."""
        taken = 0 if self.graph is None else self.graph.size
        if self._preloading.hold_at_most(size - taken):
            self._steps = self._short = None
            host.trim_heap()

    def _hold(self, prepared: PreparedPlan) -> None:
        plan = prepared.plan
        wanted = plan.target.preload_bytes or self._steps is not None
        limit = plan.target.memory_bytes
        if self.graph is not None and self.graph.size:
            return  # it holds all there is
        most = None if limit is None else self._room(limit)
        if most is not None and most < _LEAST_HELD <= plan.target.preload_bytes:
            return
        if self._lean and plan.target.preload_bytes:
            self._refill, self._steps = prepared, None
            self._preloading.release_held()
        elif wanted and (plan.steps != self._steps or self._preloading.hold_failed):
            short = most is not None and most < plan.target.preload_bytes
            if short and self._short == (plan.steps, most):
                return  # as much as there is room for is held
            self._short = (plan.steps, most) if short else None
            self._steps, self._holding = None if short else plan.steps, prepared
            self._preloading.hold(prepared.jobs, plan, most=most)

    def _trims_for(self, limit: int, wanted: int, needed: int, after: Callable[[], int]) -> bool:
        """Give back what earlier runs took, if a run leaves too little of the budget beside it.

        Args:
            wanted: bytes of weights to be held.
            needed: what the run takes alone.
            after: tells what is taken once it has run.

        Returns:
            Whether all was given back, what is held included.
        """
        taken = after()
        if taken + wanted > limit:
            self._trim_free()
            taken = after()
        beside = taken + wanted > limit >= needed + wanted  # of weights that could be held
        if beside or limit - self._runs.unknown < taken > needed:
            self.trim()
            return True
        return False

    def _trim_free(self) -> None:
        self._runs.arena_is_empty()
        shrink_arena()
        host.trim_heap()
