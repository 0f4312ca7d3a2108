"""What an engine takes of memory, and what its budget leaves room for.

In: a pack, what opening took, plans and how their texts are grouped. Out: parts of memory, plans
that fit, or why none does. Opening is measured, as it depends on the process; what runs take is
computed (``sti.planning.memory``). Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sti.device import host
from sti.device.lanes import SEQUENTIAL, LaneThreads
from sti.device.profile import DeviceProfile
from sti.engine.machine import Machine
from sti.engine.prepared import PreparedPlan
from sti.errors import InfeasibleError, InputError
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.memory import MemoryPart, PlanMemory, held_part, opened_part, total_size
from sti.planning.plan import Plan, PlanRequest
from sti.planning.uniform import uniform_plan
from sti.text.batching import group_by_length
from sti.units import format_size, rounded_up

_LEAST_OPENED, _MOST_OPENED = 2_000_000, 16_000_000
"""Bytes that opening takes at least and at most beyond the residents: what is measured may hold
what other threads of the process took or gave back meanwhile."""
_STEP_BYTES = 1 << 17
"""Opening counts in whole ones, so that what one process planned serves the next."""
_SPARE, _SMALL = 32, 8_000_000
"""What part of a budget is spared, of what goes beyond so many bytes."""
_MOST_KNOWN = 16
"""Plans whose memory is known."""
_FOLLOWING = MemoryPart("plans that follow the machine", 750_000)
"""What plans and prices take that are made after opening, at most."""


class MemoryBudget:
    """The memory of one engine.

    Args:
        reader: the open pack.
        before_bytes: anonymous memory of the process before the pack was opened; None: unknown.
        machine: predicts plans that are changed to fit.
        changing: plans for a latency follow the machine.
    """

    def __init__(
        self,
        reader: PackReader,
        before_bytes: int | None,
        machine: Machine,
        *,
        changing: bool = False,
    ) -> None:
        self._changing = changing
        self._manifest: Manifest = reader.manifest
        self._resident_bytes = reader.manifest.resident.length
        self._before_bytes, self._machine = before_bytes, machine
        self._known: dict[object, PlanMemory] = {}
        self._alone: tuple[Plan, DeviceProfile, Plan] | None = None
        self.opened_bytes = _LEAST_OPENED + self._resident_bytes
        """What opening took."""
        self.has_loaded = False
        """Whether it counts what opens graphs."""

    def note_loaded(self) -> None:
        """Take note that what opens graphs is loaded, and stays."""
        if not self.has_loaded:
            from sti.engine.graph_parts import LOADED  # few engines hold a graph

            self.has_loaded = True
            self.opened_bytes += LOADED

    def measure(self, *, held_bytes: int = 0) -> None:
        """Take note of what opening took, now that it is through.

        Args:
            held_bytes: what the process took meanwhile that is counted elsewhere.
        """
        grown = self.grown_bytes
        if grown is None:
            return
        residents = self._resident_bytes
        least, most = _LEAST_OPENED + residents, _MOST_OPENED + residents
        opened = min(max(grown - held_bytes, least), most)
        self.opened_bytes = -(-opened // _STEP_BYTES) * _STEP_BYTES

    @property
    def grown_bytes(self) -> int | None:
        """What the process has grown by since the pack was opened; None where that is unknown."""
        now = host.anonymous_bytes()
        return None if now is None or self._before_bytes is None else now - self._before_bytes

    def check_counted(self) -> None:
        """Refuse to keep a budget where memory cannot be counted.

        Raises:
            InputError: the system does not say what the process takes.
        """
        if self._before_bytes is None:
            raise InputError(
                "memory (--memory) needs a system that says what a process takes, in "
                "/proc/self/statm as Linux and Android do; give a preload instead"
            )

    def parts(
        self, plan: Plan, groups: Sequence[Workload], *, as_graph: bool = False
    ) -> tuple[MemoryPart, ...]:
        """What a run of such groups of texts takes, without what is held between runs.

        Args:
            as_graph: it is a run through the graph of the plan.
        """
        opened, found = opened_part(self.opened_bytes), self._of(plan, as_graph).parts(groups)
        if self._changing and plan.target.latency_s is not None:
            return (opened, _FOLLOWING, *found)
        return (opened, *found)

    def _of(self, plan: Plan, as_graph: bool) -> PlanMemory:
        key = plan.steps, plan.threads, plan.target.memory_bytes is None, as_graph
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = PlanMemory(self._manifest, plan, as_graph=as_graph)
        return found

    def parts_of(self, plan: Plan, graph: PreparedPlan | None = None) -> tuple[MemoryPart, ...]:
        """What a run of the plan's workload takes, and what is held.

        Args:
            graph: the plan that is held as a graph; None: weights are held compressed.
        """
        taken = self.parts(plan, (plan.workload,), as_graph=graph is not None)
        if graph is None:
            return (*taken, held_part(sum(step.preload_bytes for step in plan.steps)))
        from sti.engine.graph_parts import graph_parts  # few engines hold a graph

        return (*taken, *graph_parts(self._manifest, graph, loaded=self.has_loaded))

    def needed(self, plan: Plan, groups: Sequence[Workload], *, as_graph: bool = False) -> int:
        """Bytes of ``parts``."""
        return total_size(self.parts(plan, groups, as_graph=as_graph))

    def fitting(self, prepared: PreparedPlan, groups: Sequence[Workload]) -> PreparedPlan:
        """The plan, or where it takes too much the same on one thread.

        Raises:
            InfeasibleError: that takes too much, too.
        """
        plan, limit = prepared.plan, prepared.plan.target.memory_bytes
        if limit is None or self.needed(plan, groups) <= limit:
            return prepared
        alone = replace(plan, threads=SEQUENTIAL, predicted=None)
        needed = self.needed(alone, groups)
        if needed > limit:
            raise over_budget(limit, needed, groups)
        return prepared._replace(plan=self._predicted(alone), basis=None)

    def _predicted(self, alone: Plan) -> Plan:
        """The plan with a prediction, where the machine is known; the last one is kept."""
        if self._machine.known is None:
            return alone
        profile = self._machine.speeds.now
        if self._alone is None or self._alone[:2] != (alone, profile):
            from sti.planning.prediction import predict  # rarely needed

            found = predict(self._manifest, profile, alone)
            self._alone = alone, profile, replace(alone, predicted=found)
        return self._alone[2]


def leanest_plan(request: PlanRequest, threads: LaneThreads) -> Plan:
    """The plan that takes the least memory on these threads, whatever it is worth."""
    manifest = request.manifest
    slim = min(manifest.submodels, key=lambda item: (item.width, item.depth))
    return uniform_plan(
        request, bits=manifest.ladder[0], threads=threads, depth=slim.depth, width=slim.width
    )


def spare(limit: int) -> int:
    """Bytes of a budget that hold no weights: memory that is given back is not all of use again."""
    return max(0, limit - _SMALL) // _SPARE


def groups_of_texts(lengths: Sequence[int]) -> list[Workload]:
    """The sentences that are computed together of texts with so many tokens each."""
    return [Workload(len(item.members), item.tokens) for item in group_by_length(lengths)]


def over_budget(
    limit: int, needed: int, groups: Sequence[Workload], *, preload: int = 0
) -> InfeasibleError:
    """That texts take more than the budget of memory, and what would do.

    Args:
        preload: bytes of ``needed`` that were asked to be held.
    """
    most = max(groups, key=lambda item: item.batch * item.tokens)
    count = sum(item.batch for item in groups)
    words = most.words if len(groups) == 1 else f"{count} texts of up to {most.tokens} tokens"
    remedy = "give fewer at a time" if count > 1 else "give shorter texts"
    if preload:
        words = f"a preload of {format_size(preload)} and {words}"
        remedy = "ask for less preload"
    return InfeasibleError(
        f"a memory of {format_size(limit)} is not enough for {words}: the least is "
        f"{format_size(needed)}; raise it to {format_size(round(rounded_up(needed)))}, or {remedy}",
        limit="memory",
        asked=limit,
        needed=needed,
    )


def more_than_there_is(plan: Plan, manifest: Manifest) -> Iterator[str]:
    """What to tell of a target that asks for more than there is, given its opening plan."""
    memory = plan.target.memory_bytes
    free = None if memory is None else host.memory().available_bytes
    if memory is not None and free is not None and memory > free:
        yield (
            f"a memory of {format_size(memory)} is more than the {format_size(free)} that are "
            "available: held weights take at most half of those"
        )
    asked = plan.target.preload_bytes
    whole = asked and sum(group.length for group in manifest.groups)
    if asked > whole:
        held = sum(step.preload_bytes for step in plan.steps)
        yield (
            f"a preload of {format_size(asked)} is more than there is: at most "
            f"{format_size(whole)} of the pack can be held, and its plan for "
            f"{plan.workload.words} holds {format_size(held)}"
        )
