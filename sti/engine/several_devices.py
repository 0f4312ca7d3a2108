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

from sti.devices.chain import ChainOutcome, Chains
from sti.devices.peers import Peers
from sti.engine.device_options import DeviceOptions
from sti.engine.inputs import Batch
from sti.engine.machine import Machine
from sti.engine.prepared import PreparedPlan
from sti.errors import PeerError
from sti.exchange.interface import Exchange
from sti.model.manifest import Manifest
from sti.model.workload import Workload, bucket
from sti.pipeline.runner import Outcome
from sti.pipeline.trace import Recorder
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import LOCAL, Plan
from sti.planning.prediction import predict
from sti.planning.stage_times import Member
from sti.planning.strategies import (
    ChainPricing,
    Fleet,
    KnownTimes,
    Strategy,
    chains,
    chosen,
    local_strategy,
)

_MOST_STALE = 1.1
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
        self._known = KnownTimes()
        self._measured_s = time.monotonic()
        self._told: list[str] = []
        self._last_told = ""

    def strategies(
        self, prepared: PreparedPlan, *, texts: int, tokens: int
    ) -> tuple[list[Strategy], Strategy]:
        """Every strategy for such a batch, this machine alone first; and the one to take.

        Raises:
            ProfileError: this machine was not measured with the plan's threads.
        """
        self.peers.catch_up()
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
                why = "; ".join(f"{peer.name}: {peer.why}" for peer in self.peers.named.values())
                self._tell_once(f"no device can be used: {why}")
            self._measure_unused()
            return None
        begun = time.perf_counter()
        try:
            outcome = self._chains.run(
                taken,
                plan,
                batch.encodings,
                recorder=recorder,
                link_type=self._link_type,
                within_s=_within_s(taken, found[0], due, begun),
            )
        except PeerError as error:
            self.peers.catch_up()
            self._tell_once(str(error))
            return None
        self._last_told = ""
        self._learn(plan, taken, outcome)
        trace = recorder.trace(plan.threads)
        return ChainRun(
            Outcome(outcome.outputs, outcome.read_bytes, trace, taken.stages),
            _expecting(plan, taken.total_s),
        )

    def make_ready(self, prepared: PreparedPlan) -> None:
        """Let devices get ready for a plan that is likely to be run, for one text."""
        workload = prepared.plan.workload
        _, taken = self.strategies(prepared, texts=workload.batch, tokens=workload.tokens)
        try:
            self._chains.make_ready(taken, prepared.plan, self._link_type)
        except PeerError as error:
            self._tell_once(str(error))

    def take_told(self) -> list[str]:
        """What callers should know, once: that a device failed amid a run."""
        found, self._told = self._told, []
        return found

    def close(self) -> None:
        """Leave the other devices. Idempotent."""
        self._exchange.close()

    def _tell_once(self, why: str) -> None:
        """Tell why others did not answer, once until they do again."""
        if why != self._last_told:
            self._told.append(f"answered by this machine alone: {why}")
        self._last_told = why

    def _fleet(self, plan: Plan) -> Fleet:
        """The devices as they are now."""
        now = self._machine.speeds.now
        others = tuple(kind for kind in measured_choices(now, plan.target.threads) if kind.storage)
        local = Member(LOCAL, now, plan.threads, others=others)
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
        factors = (*self._machine.speeds.lanes.values(), *self.peers.factors)
        known = self._priced.get(key)
        if known is not None and not _differ(known.factors, factors):
            return known.found
        found = chains(self._manifest, plan, fleet, workload, self._known)
        while len(self._priced) >= _MOST_REMEMBERED:
            del self._priced[next(iter(self._priced))]
        self._priced[key] = _Priced(found, factors)
        return found

    def _learn(self, plan: Plan, taken: Strategy, outcome: ChainOutcome) -> None:
        """Correct what is expected of devices and links by what a run of one unit took."""
        if taken.units > 1:
            return
        pricing = ChainPricing(self._manifest, plan, self._fleet(plan), taken.unit, self._known)
        reports = outcome.reports[0]
        own_s = 0.0
        for stage, part in zip(taken.stages, taken.parts, strict=True):
            report = reports[stage.device]
            expected_s = pricing.own_s(stage, part, report.waited_s)
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


def _within_s(taken: Strategy, local: Strategy, due: float | None, now: float) -> float:
    """How long a chain may take before this machine begins alone."""
    patient_s = _PATIENCE * taken.total_s + _PATIENCE_S
    if due is None:
        return patient_s
    latest_s = due - now - local.total_s
    return min(patient_s, latest_s) if latest_s > _TIGHT * taken.total_s else patient_s


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
