"""Running a plan as a chain over several devices, from the machine that was asked.

In: a strategy, texts in units, the peers, this machine's runner. Out: the answers, equal to those
of this machine alone, and what each stage took. Commands for all units go to all devices at once,
so that each reads ahead and none waits for the controller; hidden states go from device to device.
Whatever goes wrong ends the run with ``PeerError``, and no device goes on with it. Not thread-safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from sti.arrays import Float32Array, Int64Array
from sti.devices import commands
from sti.devices.chain_run import ChainRun, Here, Unit
from sti.devices.commands import Prepare, Run, StageReport, run_key
from sti.devices.peers import Peers
from sti.errors import ClosedError, DeadlineError, PeerError
from sti.json_fields import JsonFields
from sti.model.manifest import Manifest
from sti.pipeline.runner import Runner
from sti.pipeline.sources import by_text
from sti.pipeline.trace import Recorder
from sti.planning.plan import LOCAL, Plan
from sti.planning.stages import Stage
from sti.planning.step_jobs import StepJob
from sti.planning.strategies import Strategy
from sti.text.batching import group_by_length, units_by_length
from sti.text.encoding import Encoding

PREPARED_WITHIN_S = 10.0
"""How long devices may take to get ready: they make sessions of graphs then, once."""
_MOST_PREPARED = 16
"""Parts that are known to be ready on devices: as many as sessions keep."""


class ChainOutcome(NamedTuple):
    """What a run over several devices gave."""

    outputs: tuple[Float32Array, ...]
    """Of each text, as ``sti.pipeline.runner.Outcome.outputs``."""
    reports: tuple[Mapping[str, StageReport], ...]
    """Of each unit, device to what its stage took."""
    total_s: float

    @property
    def read_bytes(self) -> int:
        """Read from storage, on all devices."""
        return sum(report.read_bytes for unit in self.reports for report in unit.values())


@dataclass(slots=True)
class _Part:
    """A part that a device was asked to get ready for."""

    number: int
    asked_s: float
    """In seconds of ``time.monotonic``."""
    is_ready: bool = False

    def is_overdue(self, now_s: float) -> bool:
        """Whether no answer is to be expected any more."""
        return not self.is_ready and now_s > self.asked_s + PREPARED_WITHIN_S


class Chains:
    """Runs chains over the devices of one controller.

    Args:
        peers: the devices.
        runner: of this machine, for its own stages.
        jobs_of: makes the jobs of a part's steps.
        manifest: of the pack.
    """

    def __init__(
        self,
        peers: Peers,
        runner: Runner,
        jobs_of: Callable[[Plan], tuple[StepJob, ...]],
        manifest: Manifest,
    ) -> None:
        self._peers, self._exchange = peers, peers.exchange
        self._here = Here(runner, jobs_of, manifest)
        self._numbers = 0
        """Of runs, so far."""
        self._prepared: dict[tuple[str, int, Prepare], _Part] = {}
        """By device, how often it was met, and what it is to be ready for."""
        self._parts = 0

    def run(
        self,
        strategy: Strategy,
        plan: Plan,
        texts: Sequence[Encoding],
        *,
        recorder: Recorder,
        link_type: str,
        within_s: float,
    ) -> ChainOutcome:
        """Answer texts over the stages of a strategy.

        Args:
            plan: the whole plan.
            recorder: is told of this machine's work, and of when the others worked.
            link_type: how hidden states travel.
            within_s: from now, when the answers have to be there.

        Raises:
            PeerError: a device refused, failed, was lost or was late: nobody works on it any more.
            InputError: the batch is too much for messages.
            ClosedError: the exchange was closed.
            StiError: as this machine's own stage raises it.
        """
        start = time.perf_counter()
        units = self._units(texts, strategy.units)
        parts = self.make_ready(strategy, plan, link_type, within_s=within_s)
        deadline = time.monotonic() + within_s
        remote = {stage.device for stage in strategy.stages} - {LOCAL}
        try:
            self._command(strategy, parts, units, within_s)
            run = ChainRun(self._peers, self._here, strategy, units, recorder, link_type, deadline)
            answers = run.through()
        except BaseException:
            self._drop(remote, units)
            raise
        rows = {
            place: row
            for unit in units
            for place, row in zip(
                unit.places, by_text(unit.groups, answers[unit.number]), strict=True
            )
        }
        outputs = [rows[place] for place in range(len(texts))]
        reports = tuple(run.reports[unit.number] for unit in units)
        return ChainOutcome(tuple(outputs), reports, time.perf_counter() - start)

    def make_ready(
        self,
        strategy: Strategy,
        plan: Plan,
        link_type: str,
        *,
        within_s: float = PREPARED_WITHIN_S,
    ) -> dict[str, int]:
        """Let every device get ready for its part, unless it is; the number of each one's part.

        Raises:
            PeerError: one refuses, is lost, or is late: what it answers then counts next time.
        """
        asked = self._asked(strategy, plan, link_type)
        deadline = time.monotonic() + within_s
        while late := [device for device, part in asked.items() if not part.is_ready]:
            self._peers.check_ready(late)
            try:
                self._peers.take(self._exchange.receive(watch=set(late), deadline=deadline))
            except DeadlineError as error:
                if within_s >= PREPARED_WITHIN_S:
                    self._peers.was_late(late[0])
                raise DeadlineError(f"{late[0]} was late to get ready") from error
        self._peers.check_ready(asked)
        return {device: part.number for device, part in asked.items()}

    def are_ready(self, strategy: Strategy, plan: Plan, link_type: str) -> bool:
        """Whether all devices are ready for their parts; if not, they get ready for runs to come.

        Raises:
            PeerError: one is lost.
            InputError: a part cannot be asked for.
        """
        return all(part.is_ready for part in self._asked(strategy, plan, link_type).values())

    def _asked(self, strategy: Strategy, plan: Plan, link_type: str) -> dict[str, _Part]:
        """The part of each other device, which it was asked to get ready for, if only now."""
        found: dict[str, _Part] = {}
        names = ["", *(stage.device for stage in strategy.stages), ""]
        for place, (stage, part) in enumerate(zip(strategy.stages, strategy.parts, strict=True)):
            if stage.device != LOCAL:
                before, after = (self._name(name) for name in (names[place], names[place + 2]))
                wanted = _wanted(0, plan, stage, part, before, after, link_type)
                found[stage.device] = self._prepare(stage.device, wanted)
        return found

    def _prepare(self, device: str, wanted: Prepare) -> _Part:
        """Ask a device to get ready for a part, once."""
        key = (device, self._peers.named[device].met, wanted)
        part, now_s = self._prepared.get(key), time.monotonic()
        if part is None or part.is_overdue(now_s):
            part = _Part(self._parts, now_s)
            self._parts += 1

            def heard(fields: JsonFields, made: _Part = part) -> None:
                made.is_ready = True

            head = wanted._replace(part=part.number).to_json()
            self._peers.ask(device, head, heard, wanted.plan_arrays)
            self._prepared.pop(key, None)
            while len(self._prepared) >= _MOST_PREPARED:
                del self._prepared[next(iter(self._prepared))]
            self._prepared[key] = part
        return part

    def _units(self, texts: Sequence[Encoding], count: int) -> list[Unit]:
        """The texts in at most so many parts, each of which gives its texts the bits of all."""
        lengths, units = [len(text.ids) for text in texts], []
        for places in units_by_length(lengths, count):
            some = [texts[place] for place in places]
            groups = group_by_length([lengths[place] for place in places])
            units.append(Unit(self._numbers, some, places, groups))
            self._numbers += 1
        return units

    def _name(self, device: str) -> str:
        """What other devices call a device: this machine has a name of its own there."""
        return self._exchange.name if device == LOCAL else device

    def _command(
        self,
        strategy: Strategy,
        parts: Mapping[str, int],
        units: Sequence[Unit],
        within_s: float,
    ) -> None:
        """Tell all devices of all units, the first of them with the texts."""
        for unit in units:
            for place, stage in enumerate(strategy.stages):
                if stage.device == LOCAL:
                    continue
                number = parts[stage.device]
                wait_s = min(within_s, commands.MOST_WAIT_S)
                command = Run(unit.number, number, unit.lengths, wait_s)
                arrays = () if place else _text_arrays(unit.texts)
                key = run_key(self._peers.session, unit.number)
                self._exchange.send(stage.device, key, command.to_json(), arrays)

    def _drop(self, devices: set[str], units: Sequence[Unit]) -> None:
        """Nobody is to go on with these units."""
        head = {"do": commands.DROP, "number": units[-1].number}
        for unit in units:
            with suppress(ClosedError):
                self._exchange.forget(run_key(self._peers.session, unit.number))
        for device in devices:
            try:
                self._exchange.send(device, commands.drop_key(self._peers.session), head)
            except (PeerError, ClosedError):
                continue  # whoever is lost drops it by itself


def _wanted(
    number: int,
    plan: Plan,
    stage: Stage,
    part: Plan,
    before: str,
    after: str,
    link_type: str,
) -> Prepare:
    """What a device is asked to get ready for."""
    return Prepare(
        part=number,
        plan=replace(plan, predicted=None),
        first=stage.first,
        last=stage.last,
        preloads=tuple(step.preload_bytes for step in part.steps),
        threads=part.threads,
        read_ahead=part.read_ahead,
        before=before,
        after=after,
        link_type=link_type,
    )


def _text_arrays(texts: Sequence[Encoding]) -> tuple[Int64Array, Int64Array]:
    """Token ids and types of all texts, one after another."""
    return (
        np.concatenate([text.ids for text in texts]),
        np.concatenate([text.type_ids for text in texts]),
    )
