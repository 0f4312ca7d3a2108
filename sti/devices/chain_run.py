"""One run of a chain on its way, as the machine that was asked sees it.

In: the stages, texts in units, what devices send. Out: the answers of all units, and what each
stage took. A device that is lost, fails or is late while it is needed ends the run, at the latest
with the next step that this machine computes itself. Knows nothing of who is chosen, or prepared.
For one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from sti.arrays import Float32Array
from sti.backend.onnxruntime.compute import answer_shape
from sti.devices import commands
from sti.devices.commands import StageReport, fields_of, grouped, run_key
from sti.devices.hidden_arrays import from_arrays, split, to_arrays
from sti.devices.peers import Peers
from sti.devices.stage_runner import ReadyPart, run_part
from sti.errors import DeadlineError, PeerError
from sti.exchange.interface import Message
from sti.json_fields import JsonFields
from sti.model.manifest import Manifest
from sti.pipeline.runner import Runner
from sti.pipeline.sources import HiddenStates
from sti.pipeline.trace import Recorder
from sti.planning.plan import LOCAL, Plan
from sti.planning.stages import Stage
from sti.planning.step_jobs import StepJob
from sti.planning.strategies import Strategy
from sti.text.batching import SentenceGroup
from sti.text.encoding import Encoding


class Unit(NamedTuple):
    """Texts that go through a chain together."""

    number: int
    texts: Sequence[Encoding]
    places: tuple[int, ...]
    """Of each of them in the batch."""
    groups: tuple[SentenceGroup, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each text."""
        return tuple(len(text.ids) for text in self.texts)


class Here(NamedTuple):
    """What this machine computes its own stages with."""

    runner: Runner
    jobs_of: Callable[[Plan], tuple[StepJob, ...]]
    """Makes the jobs of a part's steps."""
    manifest: Manifest
    """Of the pack."""


class _NothingCame(Exception):
    """Nothing came, and there is time."""


class ChainRun:
    """One run on its way.

    Args:
        peers: the devices.
        here: this machine.
        strategy: its stages.
        units: of its texts.
        recorder: as of ``Chains.run``.
        link_type: how hidden states travel.
        deadline: in ``time.monotonic`` seconds.
    """

    def __init__(
        self,
        peers: Peers,
        here: Here,
        strategy: Strategy,
        units: Sequence[Unit],
        recorder: Recorder,
        link_type: str,
        deadline: float,
    ) -> None:
        self._peers, self._here, self._exchange = peers, here, peers.exchange
        self._stages, self._parts = strategy.stages, strategy.parts
        self._units, self._recorder = units, recorder
        self._remote = {stage.device: stage for stage in strategy.stages if stage.device != LOCAL}
        self._link_type, self._deadline = link_type, deadline
        self._by_key = {run_key(peers.session, unit.number): unit for unit in units}
        self._answers: dict[int, tuple[Float32Array, ...]] = {}
        self._hidden: dict[int, HiddenStates] = {}
        self.reports: dict[int, dict[str, StageReport]] = {unit.number: {} for unit in units}

    def through(self) -> Mapping[int, tuple[Float32Array, ...]]:
        """Compute this machine's stage for all units, and wait for everything else."""
        place = next(
            (index for index, stage in enumerate(self._stages) if stage.device == LOCAL), None
        )
        if place is not None:
            part, last = self._parts[place], place == len(self._stages) - 1
            ready = ReadyPart(part, self._here.jobs_of(part), last)
            for unit in self._units:
                self._compute(unit, ready, first=place == 0)
        while self._left():
            self._take(self._deadline)
        for unit in self._units:
            if unit.number not in self._answers:
                raise PeerError(f"{self._stages[-1].device}: has ended without an answer")
        return self._answers

    def _left(self) -> set[str]:
        """Devices that have not ended with all units."""
        return {
            stage.device
            for stage in self._stages
            if any(stage.device not in done for done in self.reports.values())
        }

    def _compute(self, unit: Unit, ready: ReadyPart, *, first: bool) -> None:
        start = unit.texts if first else (lambda: self._wait(unit))
        outcome, report = run_part(
            self._here.runner, ready, start, self._recorder, go_on=self._look
        )
        found = outcome.found
        self.reports[unit.number][LOCAL] = report
        if not isinstance(found, HiddenStates):
            self._answers[unit.number] = found
            return
        names = [stage.device for stage in self._stages]
        self._exchange.send(
            names[names.index(LOCAL) + 1],
            run_key(self._peers.session, unit.number),
            {"is": commands.HIDDEN},
            to_arrays(found.packed, self._link_type),
        )

    def _wait(self, unit: Unit) -> HiddenStates:
        """Wait for the hidden states of a unit."""
        while unit.number not in self._hidden:
            self._take(self._deadline)
        return self._hidden.pop(unit.number)

    def _look(self) -> None:
        """Between two steps of this machine: take in what came meanwhile."""
        with suppress(_NothingCame):
            while True:
                self._take(0.0)

    def _take(self, deadline: float) -> None:
        """Take in what comes next.

        Args:
            deadline: until when it is waited for.

        Raises:
            PeerError: a device that is needed failed, is lost, or is late.
            _NothingCame: nothing came, and there is time.
        """
        left = self._left() - {LOCAL}
        try:
            message = self._exchange.receive(watch=left, deadline=deadline)
        except DeadlineError as error:
            if time.monotonic() < self._deadline:
                raise _NothingCame from None
            raise DeadlineError(self._late()) from error
        unit = self._by_key.get(message.key)
        if unit is None or message.peer not in self._remote:
            self._peers.note(message)
            self._peers.check_ready(left)
        else:
            self._take_part(unit, message)

    def _take_part(self, unit: Unit, message: Message) -> None:
        """Take in what a device says of a unit.

        Raises:
            PeerError: the device failed, or said what it should not.
        """
        peer, without = message.peer, ""
        try:
            fields = fields_of(message.head, where=f"answer of {peer}")
            if fields.raw("is") == commands.FAILED:
                without = fields.text("without") if fields.has("without") else ""
                why = fields.text("why")
                if without in self._peers.named:  # whose fault it is, first
                    raise PeerError(f"{without}: {peer} says: {why}")
                raise PeerError(f"{peer}: {why}")
            report = self._taken(unit, fields, message)
        except PeerError as error:
            if without in self._peers.named:
                self._peers.part(peer, without)
            elif without != self._exchange.name:
                self._peers.fail(peer, str(error))
            raise
        self.reports[unit.number][peer] = report
        self._note(self._remote[peer], report)

    def _taken(self, unit: Unit, fields: JsonFields, message: Message) -> StageReport:
        """Take in what a device computed."""
        kind, due = fields.raw("is"), self._due_of(message.peer)
        if kind != due:
            raise PeerError(f"{fields.where}: is {kind!r:.40}, and {due!r} was due")
        if kind == commands.ANSWER:
            self._answers[unit.number] = self._answer(unit, fields, message)
        elif kind == commands.HIDDEN:
            self._hidden[unit.number] = from_arrays(
                message.arrays,
                self._link_type,
                grouped(unit.lengths),
                self._here.manifest.dimensions.hidden,
                where=fields.where,
            )
        return StageReport.from_json(fields.object("report"))

    def _due_of(self, device: str) -> str:
        """What a device says when it has ended."""
        names = [stage.device for stage in self._stages]
        if device == names[-1]:
            return commands.ANSWER
        return commands.HIDDEN if names[names.index(device) + 1] == LOCAL else commands.DONE

    def _answer(self, unit: Unit, fields: JsonFields, message: Message) -> tuple[Float32Array, ...]:
        """The answers of a unit, by groups."""
        found = split(fields.items("shapes"), message.arrays, where=fields.where)
        due = [
            answer_shape(self._here.manifest, len(group.members), group.tokens)
            for group in unit.groups
        ]
        if [rows.shape for rows in found] != due:
            raise PeerError(f"{fields.where}: is of other texts than were due")
        if not all(np.isfinite(rows).all() for rows in found):
            raise PeerError(f"{fields.where}: has numbers that are not finite")
        return found

    def _note(self, stage: Stage, report: StageReport) -> None:
        """Put a stage into the trace: its own work ended, at the latest, when that was heard of."""
        end = time.perf_counter()
        start = end - (report.total_s - report.waited_s)
        self._recorder.add(f"device {stage.device}", stage.words, start, end)

    def _late(self) -> str:
        """Whom a run waited for in vain: the first device that has not ended."""
        for unit in self._units:
            for stage in self._stages:
                if stage.device not in self.reports[unit.number]:
                    self._peers.was_late(stage.device)
                    return f"{stage.device} was late"
        return "it took too long"
