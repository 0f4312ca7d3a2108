"""The chains that a plan could run as, priced once and kept while little changes.

In: a plan, devices as they are now, a workload. Out: chains with their times. Pricing a plan for
the first time takes longer than many runs do, so a run does not wait for it: it is done when the
run has ended, on a thread of its own, for runs to come. For one thread, beside that one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sti.devices.commands import fits
from sti.errors import ProfileError, RunError
from sti.model.manifest import Manifest
from sti.model.workload import Workload
from sti.pipeline.workers import Worker
from sti.planning.plan import Plan
from sti.planning.strategies import ChainPricing, Fleet, KnownTimes, Strategy, chains

_STALE, _WRONG = 1.05, 1.5
"""A correction that has changed by more makes chains be priced anew: for later, and at once."""
_MOST_REMEMBERED = 64
_log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """What chains are wanted for."""

    plan: Plan
    fleet: Fleet
    workload: Workload
    met: tuple[tuple[str, int], ...]
    """Of the devices, how often each was met: it may have another profile since."""
    factors: tuple[float, ...]
    """The corrections that the fleet has."""

    @property
    def key(self) -> tuple[object, ...]:
        """What stays the same while chains are only to be priced again."""
        pairs = frozenset(self.fleet.links)  # some reach each other only later, or no longer
        return self.plan.steps, self.plan.threads, self.workload, self.met, pairs


class Expected(NamedTuple):
    """What a run of one unit was to take, in seconds."""

    own_s: Mapping[str, float]
    """Device to its own work."""
    sends_s: float
    """All that is sent."""


class _Priced(NamedTuple):
    found: list[Strategy]
    factors: tuple[float, ...]


class PricedChains:
    """Chains of one engine, priced.

    Args:
        manifest: of the pack.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._priced: dict[tuple[object, ...], _Priced] = {}
        self._times = KnownTimes()
        self._lock = threading.Lock()
        """Of what stages take, and of what is priced."""
        self._worker = Worker("sti-strategies")
        self._later: Callable[[], object] | None = None
        self._refused: dict[str, str] = {}

    def of(self, asked: Asked, *, wait: bool) -> list[Strategy]:
        """The chains, the best first; none while they are still to be priced.

        Args:
            wait: price them now if need be.
        """
        known = self._priced.get(asked.key)
        if known is not None and not _differ(known.factors, asked.factors, _STALE):
            return known.found
        if wait or (known is not None and _differ(known.factors, asked.factors, _WRONG)):
            return self._price(asked)
        self._later = lambda: self._price(asked)
        return [] if known is None else known.found

    def between_runs(self) -> None:
        """Price what the last run asked for."""
        later, self._later = self._later, None
        if later is None:
            return

        def work() -> None:
            try:
                later()
            except Exception:
                _log.debug("chains could not be priced", exc_info=True)

        try:
            self._worker.submit(work)
        except RunError:
            _log.debug("chains are not priced between runs", exc_info=True)

    def expected(
        self, plan: Plan, fleet: Fleet, taken: Strategy, waits_s: Mapping[str, float]
    ) -> Expected | None:
        """What was to be expected of a run of one unit; None while chains are being priced.

        Args:
            waits_s: device to how late its hidden states came.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            pricing = ChainPricing(self._manifest, plan, fleet, taken.unit, self._times)
            own_s = {
                stage.device: pricing.own_s(stage, part, waits_s[stage.device])
                for stage, part in zip(taken.stages, taken.parts, strict=True)
            }
            return Expected(own_s, pricing.sends_s(taken.stages))
        finally:
            self._lock.release()

    def take_refused(self) -> dict[str, str]:
        """Devices that were not measured with what a plan takes, and why; once."""
        refused, self._refused = self._refused, {}
        return refused

    def close(self) -> None:
        """End the thread after what it is at. Idempotent."""
        self._worker.close()

    def _price(self, asked: Asked) -> list[Strategy]:
        with self._lock:
            fleet, known = self._priceable(asked), self._priced.get(asked.key)
            kept = None if known is None or not known.found else known.found[0]
            found = chains(self._manifest, asked.plan, fleet, asked.workload, self._times, kept)
            hidden = self._manifest.dimensions.hidden
            found = [strategy for strategy in found if fits(strategy.unit, hidden)]
            while len(self._priced) >= _MOST_REMEMBERED:
                del self._priced[next(iter(self._priced))]
            self._priced[asked.key] = _Priced(found, asked.factors)
        return found

    def _priceable(self, asked: Asked) -> Fleet:
        """Without devices that were not measured with what the plan takes."""
        members, refused = list(asked.fleet.members[:1]), {}
        for member in asked.fleet.members[1:]:
            try:
                self._times.of(self._manifest, asked.plan, member, asked.workload)
            except ProfileError as error:
                refused[member.name] = str(error)
            else:
                members.append(member)
        if refused:
            self._refused = refused  # at once: another thread takes it
        return asked.fleet._replace(members=tuple(members))


def _differ(before: tuple[float, ...], now: tuple[float, ...], most: float) -> bool:
    """Whether a correction has changed by more than a factor."""
    return any(
        max(one, other) > most * min(one, other) for one, other in zip(before, now, strict=True)
    )
