"""A worker: a device that computes the layers it is given, for as long as it is asked to.

In: messages of controllers, and hidden states of other devices. Out: hidden states to the next one,
answers and failures to the controller. One thread does everything, the runs of a session in their
order; between two steps of a run, and while it waits, it takes in what came meanwhile
(``reception.py``), so that a run that was dropped ends there. A run begins before its hidden states
are there, so that storage is read ahead. Where another session could go on at once, a run that only
waits gives way to it and begins anew later: two controllers with chains that cross each other would
else wait for one another.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sti.backend.interface import Backend
from sti.devices import commands
from sti.devices.commands import run_key
from sti.devices.facts import Facts
from sti.devices.hidden_arrays import joined, to_arrays
from sti.devices.neighbours import Connect
from sti.devices.reception import Reception, words
from sti.devices.sessions import DueRun, Session
from sti.devices.stage_runner import ReadyPart, run_part
from sti.errors import ClosedError, DeadlineError, PeerError, StiError
from sti.exchange.interface import Exchange, Message
from sti.notices import Notify
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner, StageOutcome
from sti.pipeline.sources import HiddenStates


class _GivenUp(Exception):
    """A run that is not to go on: its controller dropped it, or someone is lost."""


class _GivesWay(Exception):
    """A run that waits, while another session could go on."""


class Worker:
    """Serves controllers until it is stopped. ``serve`` is for one thread; ``stop`` for any.

    Args:
        exchange: reaches the others; stays the caller's.
        reader: the open pack, or a part of one.
        runner, backend: compute it; in no other use.
        facts: what this device says of itself.
        connect: for other workers that this one sends hidden states to.
        notify: told of what happens: who came, what was refused.
    """

    def __init__(
        self,
        exchange: Exchange,
        reader: PackReader,
        runner: Runner,
        backend: Backend,
        facts: Facts,
        *,
        connect: Connect,
        notify: Notify,
    ) -> None:
        self._exchange, self._runner = exchange, runner
        self._reception = Reception(
            exchange,
            reader,
            backend,
            facts,
            connect=connect,
            prepared=self._prepared,
            notify=notify,
        )
        self._held: ReadyPart | None = None
        """What the preload buffer is for."""
        self._computes = False
        """Whether a run is at work."""
        self._aside: Message | None = None
        """What has to wait until none is."""
        self._stopped = False

    def serve(self, *, until_lost: str | None = None) -> None:
        """Do what is asked for, until ``stop`` or until the exchange is closed.

        Args:
            until_lost: a controller without which there is nothing to do.
        """
        while not self._stopped:
            try:
                session = self._reception.next()
                if until_lost is not None and until_lost in self._reception.lost:
                    return
                if session is None:
                    self._reception.take(self._receive(deadline=None))
                else:
                    self._compute(session, session.runs[0])
            except ClosedError:
                return

    def stop(self) -> None:
        """Let ``serve`` return with the next message or run."""
        self._stopped = True

    def _receive(self, *, deadline: float | None) -> Message:
        """The next message."""
        aside, self._aside = self._aside, None
        return self._exchange.receive(deadline=deadline) if aside is None else aside

    def _prepared(self, ready: ReadyPart) -> None:
        """A part is ready."""
        if not self._computes:  # a run reads into the buffers that would follow the part
            self._hold(ready)

    def _hold(self, ready: ReadyPart) -> None:
        """Let the preload buffer follow the part that runs next."""
        if self._held is not ready:
            self._held = None
            self._runner.preloading.hold(ready.jobs, ready.part)
            self._held = ready

    def _compute(self, session: Session, due: DueRun) -> None:
        """Compute a run, and send on what comes of it."""
        deadline = time.monotonic() + due.run.wait_s
        self._computes = True
        try:
            self._hold(due.part.ready)
            outcome, report = run_part(
                self._runner,
                due.part.ready,
                due.texts or (lambda: self._wait(session, due, deadline)),
                go_on=lambda: self._look(due),
            )
            self._send_on(session, due, outcome, report._asdict())
        except (_GivesWay, _GivenUp):
            return
        except ClosedError:
            raise
        except (StiError, MemoryError) as error:
            self._reception.fail(session, due, words(error))
        finally:
            self._computes = False
        self._reception.computed(session, due)

    def _send_on(
        self, session: Session, due: DueRun, outcome: StageOutcome, report: Mapping[str, Any]
    ) -> None:
        """Send hidden states or answers to whom they are for, and the controller a report.

        Raises:
            PeerError, InputError: they cannot be sent to the controller.
        """
        key, after = run_key(session.key, due.run.number), due.part.wanted.after
        if not isinstance(outcome.found, HiddenStates):
            shapes, flat = joined(outcome.found)
            told = {"is": commands.ANSWER, "report": report, "shapes": shapes}
            self._exchange.send(session.controller, key, told, (flat,))
            return
        arrays = to_arrays(outcome.found.packed, due.part.wanted.link_type)
        if after == session.controller:
            told = {"is": commands.HIDDEN, "report": report}
            self._exchange.send(after, key, told, arrays)
            return
        try:
            self._exchange.send(after, key, {"is": commands.HIDDEN}, arrays)
        except PeerError as error:
            self._reception.fail(session, due, str(error), without=after)
        else:
            self._reception.tell(session.controller, key, {"is": commands.DONE, "report": report})

    def _wait(self, session: Session, due: DueRun, deadline: float) -> HiddenStates:
        """Wait for the hidden states of a run; take in all else that comes meanwhile."""
        while due.hidden is None:
            if self._reception.other_can_go_on(session):
                raise _GivesWay
            try:
                message = self._receive(deadline=deadline)
            except DeadlineError:
                before = due.part.wanted.before
                why = f"{before} sent no hidden states within {due.run.wait_s:g} s"
                self._reception.fail(session, due, why, without=before)
                raise _GivenUp from None
            self._reception.take(message)
            if due.given_up:
                raise _GivenUp
        return due.hidden

    def _look(self, due: DueRun) -> None:
        """Between two steps: take in what came meanwhile.

        Raises:
            _GivenUp: the run is not to go on.
        """
        while self._aside is None and not due.given_up:
            try:
                message = self._exchange.receive(deadline=0.0)
            except DeadlineError:
                break
            if message.head.get("do") == commands.PREPARE:
                self._aside = message  # takes long, and what came behind it may build on it
            else:
                self._reception.take(message)
        if due.given_up:
            raise _GivenUp
