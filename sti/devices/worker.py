"""A worker: a device that computes the layers it is given, for as long as it is asked to.

In: messages of controllers, and hidden states of other devices. Out: hidden states to the next one,
answers and failures to the controller. One thread does everything, the runs of a session in their
order; the exchange takes messages in meanwhile. A run begins before its hidden states are there, so
that storage is read ahead. Where another session could go on at once, a run that only waits gives
way to it and begins anew later: two controllers with chains that cross each other would else wait
for one another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sti.backend.interface import Backend
from sti.devices import commands
from sti.devices.commands import Prepare, Run, fields_of, run_key, session_of
from sti.devices.facts import Facts, mismatch
from sti.devices.hidden_arrays import joined, to_arrays
from sti.devices.links import measured_link
from sti.devices.sessions import DueRun, Session
from sti.devices.stage_runner import ReadyPart, ready_part, run_part
from sti.errors import ClosedError, PeerError, StiError
from sti.exchange.interface import FOUND, LOST, Exchange, Message
from sti.json_fields import JsonFields
from sti.notices import Notify
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Runner, StageOutcome
from sti.pipeline.sources import HiddenStates

MOST_SESSIONS = 8
"""Controllers that a worker answers to; the one that came longest ago is forgotten."""
_FOUND_WITHIN_S = 2.0
"""How long another worker may take to be there."""
_MOST_WHY = 400
"""Characters of a reason that is told to a peer."""
Connect = Callable[[str, str], None]
"""Makes the peer of this name reachable at this address."""


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
        self._exchange, self._reader = exchange, reader
        self._runner, self._backend, self._facts = runner, backend, facts
        self._connect, self._notify = connect, notify
        self._sessions: dict[str, Session] = {}
        self._held: ReadyPart | None = None
        """What the preload buffer is for."""
        self._there: set[str] = set()
        """Peers that were found, and are not lost."""
        self._lost: str | None = None
        """Who was lost last."""
        self._stopped = False

    def serve(self, *, until_lost: str | None = None) -> None:
        """Do what is asked for, until ``stop`` or until the exchange is closed.

        Args:
            until_lost: a controller without which there is nothing to do.
        """
        while not self._stopped:
            try:
                session = self._next()
                if self._lost == until_lost is not None:
                    return
                if session is None:
                    self._take(self._exchange.receive(deadline=None))
                else:
                    self._compute(session, session.runs[0])
            except ClosedError:
                return

    def stop(self) -> None:
        """Let ``serve`` return with the next message or run."""
        self._stopped = True

    # What arrives

    def _take(self, message: Message) -> None:
        """Take in a message; what is wrong with it is told to whoever sent it."""
        if message.key == LOST:
            self._there.discard(message.peer)
            self._lost = message.peer
            self._lose(message.peer)
        elif message.key == FOUND:
            self._there.add(message.peer)
        else:
            try:
                self._obey(message, fields_of(message.head, where=f"message of {message.peer}"))
            except ClosedError:
                raise
            except StiError as error:
                self._notify(f"refused: {error}")
                if "is" not in message.head:  # who answers an answer is answered for ever
                    self._tell(message.peer, message.key, _failure(str(error)))

    def _obey(self, message: Message, fields: JsonFields) -> None:
        """Do what a peer asks for.

        Raises:
            StiError: why it cannot be done.
        """
        asked = fields.raw("do")
        if asked == commands.ECHO:
            self._exchange.send(message.peer, message.key, {"is": commands.ECHO}, message.arrays)
            return
        if asked == commands.HELLO:
            self._greet(message, fields)
            return
        if fields.has("is"):
            self._take_result(message, fields)
            return
        session = self._sessions.get(session_of(message.key) or "")
        if session is None or session.controller != message.peer:
            raise PeerError(f"{message.peer}: says hello first in a session of its own")
        if asked == commands.PREPARE:
            self._prepare(session, message.key, Prepare.from_json(fields))
        elif asked == commands.RUN:
            most = self._reader.manifest.dimensions.max_tokens
            session.add_run(Run.from_json(fields, most_tokens=most), message.arrays)
        elif asked == commands.DROP:
            session.end(min(session.last, fields.integer("number", most=commands.MOST_NUMBER)))
        elif asked == commands.REACH:
            self._reach(session, message.key, fields)
        else:
            raise fields.fail("do", "something that a controller may ask for")

    def _greet(self, message: Message, fields: JsonFields) -> None:
        """A controller says who it is."""
        where = f"controller {message.peer}"
        session = session_of(message.key)
        if session is None:
            raise PeerError(f"{where}: {message.key!r} is no name of a session")
        theirs = Facts.from_json(fields.object("facts").members(), where=where)
        why = mismatch(theirs, self._facts, name=self._exchange.name)
        if why is not None:
            raise PeerError(why)
        for key, known in list(self._sessions.items()):
            if known.controller == message.peer:  # an earlier life of it
                del self._sessions[key]
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session] = Session(session, message.peer, self._reader.manifest)
        self._notify(f"controller {message.peer} is here")
        told = {"is": commands.HELLO, "facts": self._facts.to_json()}
        self._exchange.send(message.peer, message.key, told)

    def _reach(self, session: Session, key: str, fields: JsonFields) -> None:
        """Get to know another worker, and measure the way to it."""
        fields.only("do", "name", "address")
        name = fields.text("name")
        if not commands.is_device_name(name) or name == self._exchange.name:
            raise fields.fail("name", "the name of another device")
        if name not in self._there:
            self._connect(name, fields.text("address"))
            deadline = time.monotonic() + _FOUND_WITHIN_S
            self._exchange.receive(key=FOUND, peer=name, deadline=deadline)
            self._there.add(name)
        link = measured_link(self._exchange, name)
        self._tell(session.controller, key, {"is": commands.REACH, **link._asdict()})

    def _prepare(self, session: Session, key: str, wanted: Prepare) -> None:
        """Make a part ready."""
        ready = ready_part(
            wanted,
            self._reader,
            self._backend,
            device=self._exchange.name,
            room_bytes=self._facts.room_bytes,
        )
        self._backend.prepare({step.variant for step in ready.part.steps})
        session.add_part(wanted, ready)
        self._hold(ready)
        told = {"is": commands.PREPARE, "memory_bytes": ready.memory_bytes}
        self._tell(session.controller, key, told)

    def _hold(self, ready: ReadyPart) -> None:
        """Let the preload buffer follow the part that runs next."""
        if self._held is not ready:
            self._runner.preloading.hold(ready.jobs, ready.part)
            self._held = ready

    def _take_result(self, message: Message, fields: JsonFields) -> None:
        """Another device sends hidden states, or that none will come."""
        if not fields.has("number"):
            return  # an answer to what is not waited for any more
        number = fields.integer("number", most=commands.MOST_NUMBER)
        session = self._sessions.get(session_of(message.key) or "")
        if session is None:
            raise PeerError(f"{message.peer}: hidden states of a session that is not here")
        if fields.raw("is") == commands.FAILED:
            if any(item.run.number == number for item in session.runs_with(message.peer)):
                session.end(number)  # the controller was told by the device that failed
            return
        session.add_hidden(number, message)

    def _lose(self, peer: str) -> None:
        """Give up what cannot go on without a peer."""
        for session in list(self._sessions.values()):
            if session.controller == peer:
                self._notify(f"controller {peer} is lost")
                del self._sessions[session.key]
                session.end(session.last)
                continue
            for item in session.runs_with(peer):
                self._fail(session, item, f"{peer} is lost")
                session.end(item.run.number)

    # What is computed

    def _next(self) -> Session | None:
        """The session whose first run is next; None where nothing can be done."""
        waiting = [item for item in self._sessions.values() if item.runs]
        for session in waiting:
            if session.runs[0].has_input:
                return session
        return waiting[0] if len(waiting) == 1 else None

    def _compute(self, session: Session, due: DueRun) -> None:
        """Compute a run, and send on what comes of it."""
        deadline = time.monotonic() + due.run.wait_s
        self._hold(due.part.ready)
        try:
            outcome, report = run_part(
                self._runner,
                due.part.ready,
                due.texts or (lambda: self._wait(session, due, deadline)),
            )
            self._send_on(session, due, outcome, report._asdict())
        except _GivesWay:
            return
        except _GivenUp:
            pass
        except ClosedError:
            raise
        except StiError as error:
            self._fail(session, due, str(error))
        session.end(due.run.number)

    def _send_on(
        self, session: Session, due: DueRun, outcome: StageOutcome, report: Mapping[str, Any]
    ) -> None:
        """Send hidden states or answers to whom they are for, and the controller a report.

        Raises:
            PeerError: nobody is there to take them.
        """
        key, after = run_key(session.key, due.run.batch), due.part.wanted.after
        number = due.run.number
        if not isinstance(outcome.found, HiddenStates):
            shapes, flat = joined(outcome.found)
            told = {"is": commands.ANSWER, "number": number, "report": report, "shapes": shapes}
            self._exchange.send(session.controller, key, told, (flat,))
            return
        arrays = to_arrays(outcome.found.packed, due.part.wanted.link_type)
        if after == session.controller:
            told = {"is": commands.HIDDEN, "number": number, "report": report}
            self._exchange.send(after, key, told, arrays)
            return
        self._exchange.send(after, key, {"is": commands.HIDDEN, "number": number}, arrays)
        told = {"is": commands.DONE, "number": number, "report": report}
        self._tell(session.controller, key, told)

    def _wait(self, session: Session, due: DueRun, deadline: float) -> HiddenStates:
        """Wait for the hidden states of a run; take in all else that comes meanwhile."""
        while due.hidden is None:
            if due.run.number <= session.ended:
                raise _GivenUp
            others = (item for item in self._sessions.values() if item is not session)
            if any(item.runs and item.runs[0].has_input for item in others):
                raise _GivesWay
            self._take(self._exchange.receive(deadline=deadline))
        return due.hidden

    def _fail(self, session: Session, due: DueRun, why: str) -> None:
        """Tell the controller, and whoever waits for hidden states, that none come."""
        number, after = due.run.number, due.part.wanted.after
        self._notify(f"run {number} of {session.controller} failed: {why}")
        for peer in {session.controller, after} - {""}:
            key = run_key(session.key, due.run.batch)
            self._tell(peer, key, {**_failure(why), "number": number})

    def _tell(self, peer: str, key: str, head: Mapping[str, Any]) -> None:
        """Send a word to a peer, if it is there."""
        try:
            self._exchange.send(peer, key, head)
        except PeerError:
            self._notify(f"{peer} cannot be told: {head.get('why', head.get('is'))}")


def _failure(why: str) -> dict[str, str]:
    return {"is": commands.FAILED, "why": why[:_MOST_WHY]}
