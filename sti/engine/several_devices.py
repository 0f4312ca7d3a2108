"""An engine's other devices: whether a batch is computed with them, and how.

In: a plan that this machine could run, a batch. Out: the outcome of a chain of devices; None where
this machine alone is as good, or where others failed, and then the batch is still to be run here.
What runs show of devices and links corrects what is expected of them. The answer is the same either
way. Not thread-safe.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from sti.devices.chain import PREPARED_WITHIN_S, ChainOutcome, Chains
from sti.devices.commands import fits
from sti.devices.peer import Peer
from sti.devices.peers import MOMENT_S, Peers
from sti.engine.device_options import DeviceOptions
from sti.engine.inputs import Batch
from sti.engine.machine import Machine
from sti.engine.prepared import PreparedPlan
from sti.errors import ClosedError, InputError, PeerError, ProfileError
from sti.exchange.interface import Exchange
from sti.model.manifest import Manifest
from sti.model.workload import Workload, bucket
from sti.pipeline.runner import Outcome
from sti.pipeline.trace import Recorder
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import LOCAL, Plan
from sti.planning.prediction import predict
from sti.planning.stage_times import Member
from sti.planning.stages import Stage
from sti.planning.strategies import (
    ChainPricing,
    Fleet,
    KnownTimes,
    Strategy,
    chains,
    chosen,
    local_strategy,
)

_MOST_STALE = 1.05
"""A correction that has changed by more makes strategies be priced anew."""
_PATIENCE, _PATIENCE_S = 3.0, 0.1
"""How many times the expected seconds a chain may take, and how many more."""
_TIGHT = 1.2
"""The same where this machine could still answer in time."""
_MEASURED_AGAIN_S = 10.0
"""How often links are measured that runs do not use."""
_MOST_REMEMBERED = 64


class ChainRun(NamedTuple):
    """How a batch was computed by a chain, and what was expected of it."""

    outcome: Outcome
    plan: Plan
    """The plan, with the seconds that were expected of the chain."""


class _Priced(NamedTuple):
    """Strategies, and the corrections they were priced with."""

    found: list[Strategy]
    factors: tuple[float, ...]


class SeveralDevices:
    """The other devices of one engine.

    Args:
        exchange: reaches them; closed with this.
        peers: those that are there.
        chains: runs over them.
        manifest: of the pack.
        machine: this one.
        options: how they are to be used.
        link_type: how hidden states travel.
    """

    def __init__(
        self,
        exchange: Exchange,
        peers: Peers,
        chains: Chains,
        manifest: Manifest,
        machine: Machine,
        options: DeviceOptions,
        link_type: str,
    ) -> None:
        self._exchange, self.peers, self._chains = exchange, peers, chains
        self._manifest, self._machine = manifest, machine
        self._options, self._link_type = options, link_type
        self._priced: dict[tuple[object, ...], _Priced] = {}
        self._times = KnownTimes()
        self._here = Peer(LOCAL, "")
        """What runs have shown of this machine's own stages."""
        self._ran: set[tuple[tuple[Stage, ...], Workload]] = set()
        """Stages that ran, and sizes of units."""
        self._measured_s = time.monotonic()
        self._told: list[str] = []
        self._known: set[str] = set()
        """What was told since others answered last."""

    def strategies(
        self, prepared: PreparedPlan, *, texts: int, tokens: int
    ) -> tuple[list[Strategy], Strategy]:
        """Every strategy for such a batch, this machine alone first; and the one to take.

        Raises:
            ProfileError: this machine was not measured with the plan's threads.
        """
        # Whoever has no time finds devices that have come once they have answered.
        in_time = prepared.plan.target.latency_s is not None
        self.peers.catch_up(moment_s=0.0 if in_time else MOMENT_S)
        plan = prepared.plan
        fleet, local_s = self._fleet(plan), self._local_s(prepared)
        workload = bucket(texts, tokens, most=self._manifest.dimensions.max_tokens)
        found = [
            local_strategy(self._manifest, plan, local_s, workload),
            *self._chains_of(plan, fleet, workload),
        ]
        return found, chosen(found, self._options.wanted)

    def run(
        self, prepared: PreparedPlan, batch: Batch, recorder: Recorder, due: float | None
    ) -> ChainRun | None:
        """Answer a batch over several devices, if that is worth it.

        Args:
            prepared: the plan as this machine would run it.
            recorder: is told of all work.
            due: when the answer is due, in seconds of ``perf_counter``; None for no time.

        Returns:
            None where this machine is to run it alone: it is as fast, or others failed.
        """
        plan, texts = prepared.plan, len(batch.texts)
        found, taken = self.strategies(prepared, texts=texts, tokens=batch.mean_tokens)
        if taken.name == LOCAL:
            if self._options.wanted not in (None, LOCAL):
                self._tell_once(self._nobody)
            self._measure_unused()
            return None
        try:
            if self._options.wanted is None:
                if not self._chains.are_ready(taken, plan, self._link_type):
                    return None
            else:
                self._make_ready(taken, plan, _left_s(found[0], due))
            outcome = self._chains.run(
                taken,
                plan,
                batch.encodings,
                recorder=recorder,
                link_type=self._link_type,
                within_s=_within_s(taken, _left_s(found[0], due)),
            )
        except (PeerError, InputError, ClosedError) as error:
            # Where this engine is what was closed, the run that follows says so.
            self._tell_once(str(error))
            self._known.add(self._nobody)  # which says the same again
            return None
        self._known.clear()
        self._learn(plan, taken, outcome)
        trace = recorder.trace(plan.threads)
        return ChainRun(
            Outcome(outcome.outputs, outcome.read_bytes, trace, taken.stages),
            _expecting(plan, taken.total_s),
        )

    def set_strategy(self, strategy: str) -> None:
        """As ``Engine.set_strategy``."""
        options = self._options._replace(strategy=strategy)
        options.validate()
        self._options = options

    def make_ready(self, prepared: PreparedPlan) -> None:
        """Let devices get ready for a plan that is likely to be run, for one text."""
        workload = prepared.plan.workload
        _, taken = self.strategies(prepared, texts=workload.batch, tokens=workload.tokens)
        try:
            self._make_ready(taken, prepared.plan, None)
        except (PeerError, InputError) as error:
            self._tell_once(str(error))

    def take_told(self) -> list[str]:
        """What callers should know, once: that a device failed amid a run."""
        found, self._told = self._told, []
        return found

    def close(self) -> None:
        """Leave the other devices. Idempotent."""
        self._exchange.close()

    def _make_ready(self, taken: Strategy, plan: Plan, left_s: float | None) -> None:
        """Let devices get ready, once, while there is time for it.

        Raises:
            PeerError, InputError: as ``Chains.make_ready``.
        """
        within_s = PREPARED_WITHIN_S if left_s is None else min(PREPARED_WITHIN_S, left_s)
        self._chains.make_ready(taken, plan, self._link_type, within_s=within_s)

    @property
    def _nobody(self) -> str:
        """Why there is no chain."""
        return f"no device can be used: {self.peers.why_none}"

    def _tell_once(self, why: str) -> None:
        """Tell why others did not answer, once until they do again."""
        if why not in self._known:
            self._told.append(f"answered by this machine alone: {why}")
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known.add(why)

    def _fleet(self, plan: Plan) -> Fleet:
        """The devices as they are now."""
        now = self._machine.speeds.now
        others = tuple(kind for kind in measured_choices(now, plan.target.threads) if kind.storage)
        local = Member(LOCAL, now, plan.threads, others=others, factor=self._here.factor)
        return self.peers.fleet(local, self._link_type)

    def _local_s(self, prepared: PreparedPlan) -> float:
        """What a plan takes on this machine alone, in runs after the first, as with others."""
        plan, basis = prepared.plan, prepared.basis
        if basis is not None:
            return basis.total_s - basis.first_s
        if plan.predicted is not None:
            return plan.predicted.total_s
        return predict(self._manifest, self._machine.speeds.now, plan).total_s

    def _chains_of(self, plan: Plan, fleet: Fleet, workload: Workload) -> list[Strategy]:
        """Chains for a plan, priced again only where something has changed."""
        names = tuple((peer.name, peer.met) for peer in self.peers.named.values() if peer.is_ready)
        key = (plan.steps, plan.threads, workload, names)
        lanes = self._machine.speeds.lanes.values()
        factors = (*lanes, self._here.factor, *self.peers.factors)
        known = self._priced.get(key)
        if known is not None and not _differ(known.factors, factors):
            return known.found
        priceable = self._priceable(plan, fleet, workload)
        kept = None if known is None or not known.found else known.found[0]
        found = chains(self._manifest, plan, priceable, workload, self._times, kept)
        hidden = self._manifest.dimensions.hidden
        found = [strategy for strategy in found if fits(strategy.unit, hidden)]
        while len(self._priced) >= _MOST_REMEMBERED:
            del self._priced[next(iter(self._priced))]
        self._priced[key] = _Priced(found, factors)
        return found

    def _priceable(self, plan: Plan, fleet: Fleet, workload: Workload) -> Fleet:
        """Without devices that were not measured with what the plan takes, which are told."""
        members = list(fleet.members[:1])
        for member in fleet.members[1:]:
            try:
                self._times.of(self._manifest, plan, member, workload)
            except ProfileError as error:
                self.peers.fail(member.name, str(error))
            else:
                members.append(member)
        return fleet._replace(members=tuple(members))

    def _learn(self, plan: Plan, taken: Strategy, outcome: ChainOutcome) -> None:
        """Correct what is expected of devices and links by what a run of one unit took."""
        fleet = self._fleet(plan)
        there = {member.name for member in fleet.members}
        if taken.units > 1 or any(stage.device not in there for stage in taken.stages):
            return
        run = taken.stages, taken.unit
        if run not in self._ran:  # memory is made then, for its shapes
            if len(self._ran) >= _MOST_REMEMBERED:
                self._ran.clear()
            self._ran.add(run)
            return
        pricing = ChainPricing(self._manifest, plan, fleet, taken.unit, self._times)
        reports = outcome.reports[0]
        own_s = 0.0
        for stage, part in zip(taken.stages, taken.parts, strict=True):
            report = reports[stage.device]
            expected_s = pricing.own_s(stage, part, report.waited_s)
            if stage.device == LOCAL:
                self._here.learn(report, expected_s)
            else:
                self.peers.learn(stage.device, report, expected_s)
            own_s += report.total_s - report.waited_s
        sent_s = outcome.total_s - own_s
        expected_s = pricing.sends_s(taken.stages)
        if expected_s > 0.0 and sent_s > 0.0:
            self.peers.learn_links(set(reports), sent_s / expected_s)

    def _measure_unused(self) -> None:
        """Links that are not used are measured from time to time: they may be better again."""
        now = time.monotonic()
        if now - self._measured_s > _MEASURED_AGAIN_S and self.peers.is_doubted:
            self._measured_s = now
            self.peers.measure_again()


def _left_s(local: Strategy, due: float | None) -> float | None:
    """Seconds until this machine has to begin alone to be in time; None for no time."""
    return None if due is None else max(0.0, due - time.perf_counter() - local.total_s)


def _within_s(taken: Strategy, left_s: float | None) -> float:
    """How long a chain may take before this machine begins alone."""
    patient_s = _PATIENCE * taken.total_s + _PATIENCE_S
    if left_s is None or left_s <= _TIGHT * taken.total_s:
        return patient_s
    return min(patient_s, left_s)


def _expecting(plan: Plan, total_s: float) -> Plan:
    """A plan that is expected to take so long."""
    if plan.predicted is None:
        return plan
    return replace(plan, predicted=replace(plan.predicted, total_s=total_s))


def _differ(before: tuple[float, ...], now: tuple[float, ...]) -> bool:
    """Whether a correction has changed by much."""
    return any(
        max(one, other) > _MOST_STALE * min(one, other)
        for one, other in zip(before, now, strict=True)
    )
