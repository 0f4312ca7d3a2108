"""Who computes a run: this machine alone, or a chain of devices; and why not otherwise. Pure.

In: a plan and what it takes on this machine, the devices and their links. Out: every strategy with
its time, the memory of each device and the bytes sent, and the one to take. This machine alone is
always one of them, and others are taken only where they are ``WORTH`` times as fast by prediction:
a network costs power, other people's processors, and surprises. The plan is the same for all, so
that the answer is too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from sti.model.manifest import Manifest
from sti.model.workload import Workload, bucket
from sti.planning.chain_search import (
    MOST_DEVICES,
    Chain,
    SendTime,
    StageCosts,
    busiest,
    quickest,
)
from sti.planning.links import FLOAT32, Link, cosine_of, hidden_bytes, text_bytes
from sti.planning.plan import LOCAL, Plan
from sti.planning.stage_times import LATE_S, Member, StageTimes, weights_bytes
from sti.planning.stages import CHAIN, Stage, layers_of

WORTH = 1.2
"""How many times as fast others have to be."""
KEPT = 1.05
"""How many times as fast another chain has to be to take the place of one."""
_BELIEVED, _PASSES_S = 0.5, 10.0
"""What part of a slowness counts, of its logarithm, and how long it takes for half of it to
pass."""
_MOST_KNOWN = 256
"""Devices, plans and sizes of units of which ``KnownTimes`` are kept."""
_UNITS = (1, 2, 4, 8, 16, 32, 64)
"""Into how many parts a batch may be divided, so that all devices have something to do."""


class Fleet(NamedTuple):
    """The devices that a run may use, and what lies between them."""

    members: tuple[Member, ...]
    """The first one is this machine, ``LOCAL``."""
    links: Mapping[tuple[str, str], Link]
    """Of each ordered pair of names that can reach each other."""
    link_type: str = FLOAT32
    """How hidden states travel."""


class Strategy(NamedTuple):
    """One way to compute a batch, and what is expected of it."""

    name: str
    """One of ``STRATEGIES``."""
    stages: tuple[Stage, ...]
    parts: tuple[Plan, ...]
    """The part of the plan of each stage."""
    units: int
    """Into how many parts the batch is divided, which follow one another through the chain."""
    unit: Workload
    """The size of each."""
    total_s: float
    """Median seconds from texts to answers."""
    memory_bytes: Mapping[str, int]
    """Device to what it holds and reads ahead of weights."""
    read_bytes: Mapping[str, int]
    """Device to what it reads for each unit."""
    sent_bytes: int
    """All that is sent for the batch."""
    cosine: float = 1.0
    """About the mean cosine to expect between exact answers and these, where numbers on links are
    rounded."""

    @property
    def words(self) -> str:
        """For people: ``local``, ``chain: local 0-3, board 4-11``."""
        if self.name == LOCAL:
            return LOCAL
        spans = ", ".join(f"{item.device} {item.first}-{item.last}" for item in self.stages)
        return f"{self.name}: {spans}"


class KnownTimes:
    """What stages take, kept from one pricing to the next. Not thread-safe.

    Runs move the corrections of devices and links all the time, and what is simulated does not
    depend on them.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], StageTimes] = {}

    def of(self, manifest: Manifest, plan: Plan, member: Member, unit: Workload) -> StageTimes:
        """The times of a plan's stages on a device."""
        rest = member._replace(profile=None, factor=1.0)  # type: ignore[arg-type]
        limit = plan.target.memory_bytes
        key = (plan.steps, plan.threads, plan.read_ahead, limit, unit, id(member.profile), rest)
        found = self._known.pop(key, None)
        if found is None:
            found = StageTimes(manifest, plan, member, unit, keeps=member.name == LOCAL)
        self._known[key] = found  # which keeps the profile, and so its id
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return found


def chains(
    manifest: Manifest,
    plan: Plan,
    fleet: Fleet,
    workload: Workload,
    known: KnownTimes | None = None,
    kept: Strategy | None = None,
) -> list[Strategy]:
    """Every chain worth a comparison, the best first; none where no device can help.

    Args:
        manifest: of the pack.
        plan: what is to be computed.
        fleet: the devices; at most ``MOST_DEVICES``.
        workload: the batch.
        known: from pricings before; None: nothing is.
        kept: a chain that devices are ready for: it is the first one, unless the best is better
            by ``KEPT``, so that devices do not get ready for another one with every run.
    """
    assert len(fleet.members) <= MOST_DEVICES, "checked where devices are named"
    found: dict[tuple[tuple[Stage, ...], int], Strategy] = {}
    for units in (count for count in _UNITS if count <= workload.batch):
        batch = -(-workload.batch // units)
        unit = bucket(batch, workload.tokens, most=manifest.dimensions.max_tokens)
        pricing = ChainPricing(manifest, plan, fleet, unit, known)
        for stages in pricing.chains():
            found[stages, units] = pricing.strategy(stages, units)
        if kept is not None and kept.units == units and pricing.has(kept.stages):
            found[kept.stages, units] = pricing.strategy(kept.stages, units)

    def order_s(item: Strategy) -> float:
        is_kept = kept is not None and (item.stages, item.units) == (kept.stages, kept.units)
        return item.total_s / KEPT if is_kept else item.total_s

    priced = (item for item in found.values() if item.total_s < math.inf)  # all are in reach
    return sorted(priced, key=order_s)


def local_strategy(manifest: Manifest, plan: Plan, local_s: float, workload: Workload) -> Strategy:
    """One stage, of all layers, on this machine."""
    layers = layers_of(plan)
    stage = Stage(LOCAL, layers[0], layers[-1])
    read = 0 if plan.predicted is None else plan.predicted.bytes_read
    held = weights_bytes(manifest, plan)
    return Strategy(LOCAL, (stage,), (plan,), 1, workload, local_s, {LOCAL: held}, {LOCAL: read}, 0)


def believed_s(shown_s: float, measured_s: float, age_s: float) -> float:
    """What this machine alone is taken to need where it is compared with others.

    Its own runs show at once when it is slow; nothing shows that others would be slow as well, or
    that it is fast again while others run. So half of a slowness counts, and less with time.

    Args:
        shown_s: with what its runs showed.
        measured_s: as it was measured.
        age_s: since it ran alone last.
    """
    if shown_s <= measured_s:
        return shown_s
    left: float = 0.5 ** (age_s / _PASSES_S)
    slower: float = (shown_s / measured_s) ** (_BELIEVED * left)
    return measured_s * slower


def chosen(found: Sequence[Strategy], wanted: str | None = None) -> Strategy:
    """The strategy to take.

    Args:
        found: this machine alone, and what ``chains`` gives.
        wanted: one of ``STRATEGIES``, where that is to be taken whatever it costs, if there is one;
            None: the fastest, if it is worth it.
    """
    local, others = found[0], found[1:]
    if wanted is not None:
        return next((item for item in found if item.name == wanted), local)
    if others and others[0].total_s * WORTH <= local.total_s:
        return others[0]
    return local


def why_not(strategy: Strategy, taken: Strategy) -> str:
    """Why a strategy loses against the one that is taken; empty for that one."""
    if strategy is taken:
        return ""
    ratio = strategy.total_s / taken.total_s
    if ratio >= 1.0:
        return f"{ratio:.2f} times as long"
    return f"only {1.0 / ratio:.2f} times as fast, and others are taken from {WORTH:g} times on"


class ChainPricing:
    """Prices chains for one plan and one size of a unit. Not thread-safe: it remembers.

    Args:
        manifest, plan, fleet: as of ``chains``.
        unit: what goes through a chain at a time.
        known: as of ``chains``.
    """

    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        fleet: Fleet,
        unit: Workload,
        known: KnownTimes | None = None,
    ) -> None:
        self._layers, self._fleet, self._unit = layers_of(plan), fleet, unit
        self._manifest = manifest
        self._tokens = unit.batch * unit.tokens
        self._answer_bytes = _answer_bytes(manifest, unit)
        self._hidden = hidden_bytes(self._tokens, manifest.dimensions.hidden, fleet.link_type)
        self._tokenize_s = fleet.members[0].profile.tokenize_s * self._tokens
        known = known or KnownTimes()
        self._times = [known.of(manifest, plan, member, unit) for member in fleet.members]

    def chains(self) -> Iterator[tuple[Stage, ...]]:
        """The chain of least latency, and the one of most throughput, if there are any."""
        costs = [self._costs(number) for number in range(len(self._times))]
        send: SendTime = partial(self._send_s, self._hidden)
        for search in (quickest, busiest):
            chain = search(len(self._layers), costs, send)
            if chain is not None:
                yield self._stages(chain)

    def has(self, stages: Sequence[Stage]) -> bool:
        """Whether all of these devices are there, and have room for these layers."""
        names = {member.name for member in self._fleet.members}
        return all(stage.device in names for stage in stages) and all(map(self._part, stages))

    def own_s(self, stage: Stage, part: Plan, waited_s: float) -> float:
        """Seconds of a device's own work in a stage whose hidden states came so late."""
        return self._end_s(self._number(stage.device), stage, part, waited_s) - waited_s

    def sends_s(self, stages: Sequence[Stage]) -> float:
        """Seconds of everything that is sent for a unit, from the command to the answer."""
        numbers = [self._number(stage.device) for stage in stages]
        found = self._heard_s(numbers[0]) if numbers[0] else 0.0
        found += sum(self._send_s(self._hidden, one, other) for one, other in pairwise(numbers))
        return found + (self._send_s(self._answer_bytes, numbers[-1], 0) if numbers[-1] else 0.0)

    def strategy(self, stages: tuple[Stage, ...], units: int) -> Strategy:
        """What a batch of so many units takes on a chain."""
        parts = tuple(self._part(stage) for stage in stages)
        numbers = [self._number(stage.device) for stage in stages]
        known = [part for part in parts if part is not None]
        assert len(known) == len(parts), "chains are made of parts that there is room for"
        memory, read = {}, {}
        for number, stage, part in zip(numbers, stages, known, strict=True):
            memory[stage.device] = weights_bytes(self._manifest, part)
            read[stage.device] = self._times[number].read_bytes(part)
        first_s = self._latency_s(stages, known, numbers)
        each_s = self._each_s(stages, known, numbers)
        sent = self._hidden * (len(stages) - 1)
        sent += (text_bytes(self._tokens) if numbers[0] else 0) + (
            self._answer_bytes if numbers[-1] else 0
        )
        return Strategy(
            CHAIN,
            stages,
            tuple(known),
            units,
            self._unit,
            self._tokenize_s * units + first_s + (units - 1) * each_s,
            memory,
            read,
            sent * units,
            cosine_of(len(stages) - 1, self._fleet.link_type),
        )

    def _latency_s(
        self, stages: Sequence[Stage], parts: Sequence[Plan], numbers: Sequence[int]
    ) -> float:
        """Seconds of one unit, each stage simulated with its arrival."""
        end_s, before = 0.0, None
        for number, stage, part in zip(numbers, stages, parts, strict=True):
            heard_s = self._heard_s(number)
            arrival_s = (
                heard_s if before is None else end_s + self._send_s(self._hidden, before, number)
            )
            waits_s = max(0.0, arrival_s - heard_s)
            end_s = heard_s + self._end_s(number, stage, part, waits_s)
            before = number
        assert before is not None, "there is a stage"
        return end_s + (self._send_s(self._answer_bytes, before, 0) if before else 0.0)

    def _each_s(
        self, stages: Sequence[Stage], parts: Sequence[Plan], numbers: Sequence[int]
    ) -> float:
        """Seconds that each unit more takes: those of the busiest device or link."""
        busy = [
            self._end_s(number, stage, part, 0.0)
            for number, stage, part in zip(numbers, stages, parts, strict=True)
        ]
        sends = [self._send_s(self._hidden, one, other) for one, other in pairwise(numbers)]
        return max(busy + sends)

    def _end_s(self, number: int, stage: Stage, part: Plan, arrival_s: float) -> float:
        """When a part is done, with what runs have shown of the device."""
        alone_s = self._times[number].end_s(stage, part, arrival_s)
        waits_s = arrival_s if stage.first != self._layers[0] else 0.0
        # What runs have shown is of the device's own work, not of the wait before it.
        return waits_s + (alone_s - waits_s) * self._fleet.members[number].factor

    def _costs(self, number: int) -> StageCosts:
        """What every stretch of layers takes on a device."""
        times, factor = self._times[number], self._fleet.members[number].factor
        own, at_once = [], []
        for first in range(len(self._layers)):
            before = [math.inf] * (first + 1)
            late_s = LATE_S if first else 0.0
            ends_s = times.ends_s(first, late_s)
            own.append(before + [(end_s - late_s) * factor for end_s in ends_s])
            at_once.append(before + [end_s * factor for end_s in times.ends_s(first, 0.0)])
        answer_s = self._send_s(self._answer_bytes, number, 0) if number else 0.0
        return StageCosts(own, at_once, self._heard_s(number), answer_s)

    def _heard_s(self, number: int) -> float:
        """When a device hears of a run; the text comes with it."""
        return self._send_s(text_bytes(self._tokens), 0, number) if number else 0.0

    def _send_s(self, size: int, one: int, other: int) -> float:
        members = self._fleet.members
        link = self._fleet.links.get((members[one].name, members[other].name))
        return math.inf if link is None else link.send_s(size)

    def _number(self, device: str) -> int:
        names = [member.name for member in self._fleet.members]
        return names.index(device)

    def _part(self, stage: Stage) -> Plan | None:
        return self._times[self._number(stage.device)].part(stage)

    def _stages(self, chain: Chain) -> tuple[Stage, ...]:
        members, layers = self._fleet.members, self._layers
        return tuple(
            Stage(members[cut.device].name, layers[cut.first], layers[cut.end - 1])
            for cut in chain.cuts
        )


def _answer_bytes(manifest: Manifest, unit: Workload) -> int:
    """Bytes of the head's answers for a unit."""
    each = manifest.embedding_size if manifest.task == "embedding" else len(manifest.labels)
    count = unit.batch * (unit.tokens if manifest.task == "tagging" else 1)
    return 4 * each * count
