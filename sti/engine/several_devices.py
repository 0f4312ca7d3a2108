"""An engine's other devices: whether a batch is computed with them, and how.

In: a plan that this machine could run, a batch. Out: the outcome of a chain of devices; None where
this machine alone is as good, or where others failed, and then the batch is still to be run here.
The answer is the same either way. Not thread-safe.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from sti.devices.chain import PREPARED_WITHIN_S, Chains
from sti.devices.peers import MOMENT_S, Peers
from sti.engine.device_options import DeviceOptions
from sti.engine.inputs import Batch
from sti.engine.machine import Machine
from sti.engine.prepared import PreparedPlan
from sti.engine.priced_chains import Asked, PricedChains
from sti.engine.stage_corrections import StageCorrections
from sti.errors import ClosedError, InputError, PeerError
from sti.exchange.interface import Exchange
from sti.model.manifest import Manifest
from sti.model.workload import Workload, bucket
from sti.pipeline.runner import Outcome
from sti.pipeline.trace import Recorder
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import LOCAL, Plan
from sti.planning.prediction import predict
from sti.planning.strategies import Fleet, Strategy, believed_s, chosen, local_strategy

_PATIENCE, _PATIENCE_S = 3.0, 0.1
"""How many times the expected seconds a chain may take, and how many more."""
_TIGHT = 1.2
"""The same where this machine could still answer in time."""
_ASKED_FOR_S = 1.0
"""``_PATIENCE_S`` where a chain is what was asked for: first runs on a busy machine take long."""
_MEASURED_AGAIN_S = 10.0
"""How often links are measured that runs do not use."""
_MOST_KNOWN = 64
"""Reasons that were told, and plans that were measured here."""


class ChainRun(NamedTuple):
    """How a batch was computed by a chain, and what was expected of it."""

    outcome: Outcome
    plan: Plan
    """The plan, with the seconds that were expected of the chain."""


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
        self._prices = PricedChains(manifest)
        self._corrections = StageCorrections(peers, self._prices, link_type)
        self._links_measured_s = time.monotonic()
        self._ran_alone_s = self._links_measured_s
        """When this machine ran alone last."""
        self._alone: dict[tuple[object, ...], Strategy] = {}
        """This machine alone as it was measured, for plans and workloads."""
        self._told: list[str] = []
        self._told_rounded = False
        self._known: set[str] = set()
        """What was told since others answered last."""

    def strategies(
        self, prepared: PreparedPlan, *, texts: int, tokens: int, wait: bool = True
    ) -> tuple[list[Strategy], Strategy]:
        """Every strategy for such a batch, this machine alone first; and the one to take.

        Args:
            prepared: the plan as this machine would run it.
            texts, tokens: of the batch; tokens of each text, on average.
            wait: price chains that were not priced yet; else there are none of them.

        Raises:
            ProfileError: this machine was not measured with the plan's threads.
        """
        # Whoever has no time finds devices that have come once they have answered.
        in_time = prepared.plan.target.latency_s is not None
        self.peers.catch_up(moment_s=0.0 if in_time else MOMENT_S)
        plan = prepared.plan
        workload = bucket(texts, tokens, most=self._manifest.dimensions.max_tokens)
        local, fleet = self._local(prepared, workload), self._fleet(plan, workload)
        found = [local, *self._chains_of(plan, fleet, workload, wait=wait)]
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
        _, taken = self.strategies(
            prepared,
            texts=texts,
            tokens=batch.mean_tokens,
            wait=self._options.wanted not in (None, LOCAL),
        )
        if taken.name == LOCAL:
            if self._options.wanted not in (None, LOCAL):
                self._tell_once(self._nobody)
            self._measure_unused(())
            self._ran_alone_s = time.monotonic()
            return None
        try:
            if self._options.wanted is None:
                if not self._chains.are_ready(taken, plan, self._link_type):
                    return None
            else:
                self._make_ready(taken, plan, _left_s(self._alone_s(prepared), due))
            outcome = self._chains.run(
                taken,
                plan,
                batch.encodings,
                recorder=recorder,
                link_type=self._link_type,
                within_s=self._within_s(taken, _left_s(self._alone_s(prepared), due)),
            )
        except (PeerError, InputError, ClosedError) as error:
            # Where this engine is what was closed, the run that follows says so.
            self._tell_once(str(error))
            self._known.add(self._nobody)  # which says the same again
            return None
        self._known.clear()
        self._tell_rounded(taken)
        workload = bucket(texts, batch.mean_tokens, most=self._manifest.dimensions.max_tokens)
        fleet = self._fleet(plan, workload)
        self._corrections.learn(plan, fleet, workload, taken, outcome)
        self._measure_unused({stage.device for stage in taken.stages})
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

    def ended(self) -> list[str]:
        """A run has ended: what callers should know, once, such as that a device failed amid it."""
        self._prices.between_runs()
        found, self._told = self._told, []
        return found

    def close(self) -> None:
        """Leave the other devices. Idempotent."""
        self.peers.close()
        self._exchange.close()
        self._prices.close()

    def _make_ready(self, taken: Strategy, plan: Plan, left_s: float | None) -> None:
        """Let devices get ready, once, while there is time for it.

        Raises:
            PeerError, InputError: as ``Chains.make_ready``.
        """
        within_s = PREPARED_WITHIN_S if left_s is None else min(PREPARED_WITHIN_S, left_s)
        self._chains.make_ready(taken, plan, self._link_type, within_s=within_s)

    def _within_s(self, taken: Strategy, left_s: float | None) -> float:
        """How long a chain may take before this machine begins alone."""
        more_s = _PATIENCE_S if self._options.wanted is None else _ASKED_FOR_S
        patient_s = _PATIENCE * taken.total_s + more_s
        if left_s is None or left_s <= _TIGHT * taken.total_s:
            return patient_s
        return min(patient_s, left_s)

    @property
    def _nobody(self) -> str:
        """Why there is no chain."""
        return f"no device can be used: {self.peers.why_none}"

    def _tell_once(self, why: str) -> None:
        """Tell why others did not answer, once until they do again."""
        if why not in self._known:
            self._told.append(f"answered by this machine alone: {why}")
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known.add(why)

    def _tell_rounded(self, taken: Strategy) -> None:
        """Tell, once, that answers of chains are not exact."""
        if taken.cosine < 1.0 and not self._told_rounded:
            self._told_rounded = True
            self._told.append(
                f"numbers on links are {self._link_type}: answers that chains give have a mean "
                f"cosine of about {taken.cosine:.4f} with exact ones"
            )

    def _fleet(self, plan: Plan, workload: Workload) -> Fleet:
        """The devices as they are now, for a workload."""
        now = self._machine.speeds.now
        others = [kind for kind in measured_choices(now, plan.target.threads) if kind.storage]
        return self._corrections.fleet(now, plan.threads, others, workload)

    def _alone_s(self, prepared: PreparedPlan) -> float:
        """What a plan takes on this machine alone, in runs after the first, as with others."""
        plan, basis = prepared.plan, prepared.basis
        if basis is not None:
            return basis.total_s - basis.first_s
        if plan.predicted is not None:
            return plan.predicted.total_s
        return predict(self._manifest, self._machine.speeds.now, plan).total_s

    def _local(self, prepared: PreparedPlan, workload: Workload) -> Strategy:
        """What others are compared with: this machine alone."""
        measured = self._as_measured(prepared.plan, workload)
        age_s = time.monotonic() - self._ran_alone_s
        total_s = believed_s(self._alone_s(prepared), measured.total_s, age_s)
        return measured._replace(total_s=total_s, parts=(prepared.plan,))

    def _as_measured(self, plan: Plan, workload: Workload) -> Strategy:
        """What this machine alone takes as it was measured."""
        key = plan.steps, plan.threads, workload
        if key not in self._alone:
            if len(self._alone) >= _MOST_KNOWN:
                self._alone.clear()
            of_this = replace(plan, workload=workload)
            total_s = predict(self._manifest, self._machine.speeds.profile, of_this).total_s
            self._alone[key] = local_strategy(self._manifest, plan, total_s, workload)
        return self._alone[key]

    def _chains_of(
        self, plan: Plan, fleet: Fleet, workload: Workload, *, wait: bool
    ) -> list[Strategy]:
        """Chains for a plan, if they are priced."""
        met = tuple((peer.name, peer.met) for peer in self.peers.named.values() if peer.is_ready)
        lanes = self._machine.speeds.lanes.values()
        factors = (*lanes, *self._corrections.factors(workload))
        asked = Asked(plan, fleet, workload, met, factors)
        found = self._prices.of(asked, wait=wait)
        for name, why in self._prices.take_refused().items():
            self.peers.fail(name, why)
        return found

    def _measure_unused(self, used: Collection[str]) -> None:
        """Links that are not used are measured from time to time: they may be better again."""
        now = time.monotonic()
        if now - self._links_measured_s > _MEASURED_AGAIN_S:
            self._links_measured_s = now
            self.peers.measure_again(used)


def _left_s(alone_s: float, due: float | None) -> float | None:
    """Seconds until this machine has to begin alone to be in time; None for no time."""
    return None if due is None else max(0.0, due - time.perf_counter() - alone_s)


def _expecting(plan: Plan, total_s: float) -> Plan:
    """A plan that is expected to take so long."""
    if plan.predicted is None:
        return plan
    return replace(plan, predicted=replace(plan.predicted, total_s=total_s))
