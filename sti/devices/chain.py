"""Running a plan as a chain over several devices, from the machine that was asked.

In: a strategy, texts in units, the peers, this machine's runner. Out: the answers, equal to those
of this machine alone, and what each stage took. Commands for all units go to all devices at once,
so that each reads ahead and none waits for the controller; hidden states go from device to device.
Whatever goes wrong ends the run with ``PeerError``, and no device goes on with it. Not thread-safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sti.arrays import Float32Array, Int64Array
from sti.devices import commands
from sti.devices.commands import Prepare, Run, StageReport, ask_key, fields_of, run_key
from sti.devices.hidden_arrays import from_arrays, split, to_arrays
from sti.devices.peers import Peers
from sti.devices.stage_runner import ReadyPart, StageInput, run_part
from sti.errors import DeadlineError, PeerError
from sti.pipeline.runner import Runner
from sti.pipeline.sources import HiddenStates
from sti.pipeline.trace import Recorder
from sti.planning.plan import LOCAL, Plan
from sti.planning.stages import Stage
from sti.planning.step_jobs import StepJob
from sti.planning.strategies import Strategy
from sti.text.batching import SentenceGroup, group_by_length, units_by_length
from sti.text.encoding import Encoding

_PREPARED_WITHIN_S = 10.0
"""A device makes sessions of graphs then, once."""
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


class _Unit(NamedTuple):
    """Texts that go through the chain together."""

    number: int
    texts: Sequence[Encoding]
    places: tuple[int, ...]
    """Of each of them in the batch."""
    groups: tuple[SentenceGroup, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(len(text.ids) for text in self.texts)

    @property
    def group_lengths(self) -> tuple[tuple[int, ...], ...]:
        lengths = self.lengths
        return tuple(tuple(lengths[item] for item in group.members) for group in self.groups)


class Chains:
    """Runs chains over the devices of one controller.

    Args:
        peers: the devices.
        runner: of this machine, for its own stages.
        jobs_of: makes the jobs of a part's steps.
        hidden: numbers of a hidden state.
    """

    def __init__(
        self,
        peers: Peers,
        runner: Runner,
        jobs_of: Callable[[Plan], tuple[StepJob, ...]],
        *,
        hidden: int,
    ) -> None:
        self._peers, self._runner, self._jobs_of = peers, runner, jobs_of
        self._exchange, self._hidden = peers.exchange, hidden
        self._numbers = 0
        """Of runs, so far."""
        self._prepared: dict[tuple[str, int, Prepare], int] = {}
        """Device, how often it was met, and what it is ready for, to the part's number."""
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
                What this machine's own stage raises is raised as it is.
        """
        start = time.perf_counter()
        units = self._units(texts, strategy.units)
        parts = self._ready(strategy, plan, link_type)
        deadline = time.monotonic() + within_s
        remote = {stage.device for stage in strategy.stages} - {LOCAL}
        try:
            self._command(strategy, parts, units, within_s)
            run = _Running(self, strategy, units, recorder, link_type, deadline)
            answers = run.through()
        except BaseException:
            self._drop(remote, units)
            raise
        answered = [(unit, _by_text(unit, answers[unit.number])) for unit in units]
        by_place = {
            place: row
            for unit, rows in answered
            for place, row in zip(unit.places, rows, strict=True)
        }
        outputs = [by_place[place] for place in range(len(texts))]
        reports = tuple(run.reports[unit.number] for unit in units)
        return ChainOutcome(tuple(outputs), reports, time.perf_counter() - start)

    def make_ready(self, strategy: Strategy, plan: Plan, link_type: str) -> None:
        """Let devices get ready for their parts, so that the first run is not late.

        Raises:
            PeerError: one refuses, or is lost.
        """
        self._ready(strategy, plan, link_type)

    def _units(self, texts: Sequence[Encoding], count: int) -> list[_Unit]:
        """The texts in at most so many parts, which give each of them the bits of the whole."""
        lengths, units = [len(text.ids) for text in texts], []
        for places in units_by_length(lengths, count):
            groups = group_by_length([lengths[place] for place in places])
            some = [texts[place] for place in places]
            units.append(_Unit(self._numbers, some, places, groups))
            self._numbers += 1
        return units

    def _ready(self, strategy: Strategy, plan: Plan, link_type: str) -> dict[str, int]:
        """Make every device ready for its part; the number of each device's part.

        Raises:
            PeerError: one refuses.
        """
        found: dict[str, int] = {}
        names = ["", *(stage.device for stage in strategy.stages), ""]
        for place, (stage, part) in enumerate(zip(strategy.stages, strategy.parts, strict=True)):
            if stage.device == LOCAL:
                continue
            before, after = (self._name(name) for name in (names[place], names[place + 2]))
            wanted = _wanted(0, plan, stage, part, before, after, link_type)
            key = (stage.device, self._peers.named[stage.device].met, wanted)
            number = self._prepared.get(key)
            if number is None:
                number = self._parts
                self._parts += 1
                head = wanted._replace(part=number).to_json()
                self._peers.ask(stage.device, head, within_s=_PREPARED_WITHIN_S)
                while len(self._prepared) >= _MOST_PREPARED:
                    del self._prepared[next(iter(self._prepared))]
                self._prepared[key] = number
            found[stage.device] = number
        return found

    def _name(self, device: str) -> str:
        """What other devices call a device: this machine has a name of its own there."""
        return self._exchange.name if device == LOCAL else device

    def _command(
        self,
        strategy: Strategy,
        parts: Mapping[str, int],
        units: Sequence[_Unit],
        within_s: float,
    ) -> None:
        """Tell all devices of all units, the first of them with the texts."""
        for unit in units:
            for place, stage in enumerate(strategy.stages):
                if stage.device == LOCAL:
                    continue
                number = parts[stage.device]
                command = Run(unit.number, number, unit.group_lengths, unit.lengths, within_s)
                arrays = () if place else _text_arrays(unit.texts)
                self._exchange.send(stage.device, self._peers.session, command.to_json(), arrays)

    def _drop(self, devices: set[str], units: Sequence[_Unit]) -> None:
        """Nobody is to go on with these units."""
        head = {"do": commands.DROP, "number": units[-1].number}
        for unit in units:
            self._exchange.forget(run_key(self._peers.session, unit.number))
        for device in devices:
            try:
                self._exchange.send(device, ask_key(self._peers.session, 0), head)
            except PeerError:
                continue  # whoever is lost drops it by itself

    def ready_part(self, part: Plan, *, last: bool) -> ReadyPart:
        """The part of this machine."""
        return ReadyPart(part, self._jobs_of(part), last)

    def run_own(
        self, ready: ReadyPart, start: StageInput, recorder: Recorder
    ) -> tuple[HiddenStates | tuple[Float32Array, ...], StageReport]:
        """Run the stage of this machine."""
        outcome, report = run_part(self._runner, ready, start, recorder)
        return outcome.found, report

    @property
    def peers(self) -> Peers:
        """The devices."""
        return self._peers

    @property
    def hidden(self) -> int:
        """Numbers of a hidden state."""
        return self._hidden


class _Running:
    """One run on its way.

    Args:
        chains: whose run it is.
        strategy: its stages.
        units: of its texts.
        recorder: as of ``Chains.run``.
        link_type: how hidden states travel.
        deadline: in ``time.monotonic`` seconds.
    """

    def __init__(
        self,
        chains: Chains,
        strategy: Strategy,
        units: Sequence[_Unit],
        recorder: Recorder,
        link_type: str,
        deadline: float,
    ) -> None:
        self._chains, self._exchange = chains, chains.peers.exchange
        self._stages, self._parts = strategy.stages, strategy.parts
        self._units, self._recorder = units, recorder
        self._remote = {stage.device: stage for stage in strategy.stages if stage.device != LOCAL}
        self._link_type, self._deadline = link_type, deadline
        self._by_key = {run_key(chains.peers.session, unit.number): unit for unit in units}
        self._answers: dict[int, tuple[Float32Array, ...]] = {}
        self._hidden: dict[int, HiddenStates] = {}
        self.reports: dict[int, dict[str, StageReport]] = {unit.number: {} for unit in units}

    def through(self) -> Mapping[int, tuple[Float32Array, ...]]:
        """Compute this machine's stage for all units, and wait for everything else."""
        place = next(
            (index for index, stage in enumerate(self._stages) if stage.device == LOCAL), None
        )
        if place is not None:
            last = place == len(self._stages) - 1
            ready = self._chains.ready_part(self._parts[place], last=last)
            for unit in self._units:
                self._compute(unit, ready, first=place == 0)
        due = len(self._units) * len(self._stages)
        while sum(map(len, self.reports.values())) < due:
            self._take()
        return self._answers

    def _compute(self, unit: _Unit, ready: ReadyPart, *, first: bool) -> None:
        start = unit.texts if first else (lambda: self._wait(unit))
        found, report = self._chains.run_own(ready, start, self._recorder)
        self.reports[unit.number][LOCAL] = report
        if not isinstance(found, HiddenStates):
            self._answers[unit.number] = found
            return
        names = [stage.device for stage in self._stages]
        self._exchange.send(
            names[names.index(LOCAL) + 1],
            run_key(self._chains.peers.session, unit.number),
            {"is": commands.HIDDEN},
            to_arrays(found.packed, self._link_type),
        )

    def _wait(self, unit: _Unit) -> HiddenStates:
        """Wait for the hidden states of a unit."""
        while unit.number not in self._hidden:
            self._take()
        return self._hidden.pop(unit.number)

    def _take(self) -> None:
        """Take in what comes next.

        Raises:
            PeerError: a device failed, is lost, or is late.
        """
        try:
            message = self._exchange.receive(watch=set(self._remote), deadline=self._deadline)
        except DeadlineError as error:
            raise DeadlineError(f"{self._late()}: {error}") from error
        unit = self._by_key.get(message.key)
        if unit is None:
            self._chains.peers.note(message)
            return
        where = f"run {unit.number} on {message.peer}"
        fields = fields_of(message.head, where=where)
        if fields.raw("is") == commands.FAILED:
            raise PeerError(f"{where}: {fields.text('why')}")
        if message.peer not in self._remote:
            raise PeerError(f"{where}: it has no part in it")
        report = StageReport.from_json(fields.object("report"))
        if fields.raw("is") == commands.ANSWER:
            found = split(fields.items("shapes"), message.arrays, where=where)
            if [len(rows) for rows in found] != [len(group.members) for group in unit.groups]:
                raise PeerError(f"{where}: answered other texts than were due")
            self._answers[unit.number] = found
        elif fields.raw("is") == commands.HIDDEN:
            self._hidden[unit.number] = from_arrays(
                message.arrays,
                self._link_type,
                unit.group_lengths,
                self._chains.hidden,
                where=where,
            )
        self.reports[unit.number][message.peer] = report
        self._note(self._remote[message.peer], report)

    def _note(self, stage: Stage, report: StageReport) -> None:
        """Put a stage into the trace: its own work ended, at the latest, when that was heard of."""
        end = time.perf_counter()
        start = end - (report.total_s - report.waited_s)
        layers = f"layers {stage.first}-{stage.last}"
        self._recorder.add(f"device {stage.device}", layers, start, end)

    def _late(self) -> str:
        """Whom a run waited for in vain: the first device that has not ended."""
        for unit in self._units:
            for stage in self._stages:
                if stage.device not in self.reports[unit.number]:
                    self._chains.peers.was_late(stage.device)
                    return f"{stage.device} was late"
        return "nobody was late"


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


def _by_text(unit: _Unit, answers: Sequence[Float32Array]) -> list[Float32Array]:
    """The answers of groups in the order of the texts."""
    rows: list[Float32Array] = [answers[0][0]] * len(unit.texts)
    for group, answer in zip(unit.groups, answers, strict=True):
        for member, row in zip(group.members, answer, strict=True):
            rows[member] = row
    return rows
