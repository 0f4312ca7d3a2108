"""What arrives at a worker, and what becomes of it: sessions of controllers, their parts and runs.

In: messages of controllers and of other workers. Out: runs that wait to be computed; answers, and
failures, for whoever sent what is wrong. Nothing that arrives ends a worker, and whatever does not
end well is told under its own key. Knows nothing of computing. For the worker's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sti.backend.interface import Backend
from sti.devices import commands
from sti.devices.commands import Prepare, Run, failure, fields_of, run_key, run_number, session_of
from sti.devices.facts import Facts, mismatch
from sti.devices.neighbours import Connect, Neighbours
from sti.devices.sessions import DueRun, Session
from sti.devices.stage_runner import ReadyPart, ready_part
from sti.errors import ClosedError, InputError, PeerError, StiError
from sti.exchange.interface import FOUND, LOST, Exchange, Message
from sti.exchange.names import is_device_name
from sti.json_fields import JsonFields
from sti.notices import Notify
from sti.pack.pack_reader import PackReader

MOST_SESSIONS = 8
"""Controllers that a worker answers to; the one that asked for nothing the longest is forgotten."""


class Reception:
    """Takes in what arrives.

    Args:
        exchange: reaches the others.
        reader: the open pack, or a part of one.
        backend: gets ready for parts.
        facts: what this device says of itself.
        connect: for other workers that this one sends hidden states to.
        prepared: told of parts that are ready.
        notify: told of what happens: who came, what was refused.
    """

    def __init__(
        self,
        exchange: Exchange,
        reader: PackReader,
        backend: Backend,
        facts: Facts,
        *,
        connect: Connect,
        prepared: Callable[[ReadyPart], None],
        notify: Notify,
    ) -> None:
        self._exchange, self._reader, self._backend = exchange, reader, backend
        self._facts, self._prepared, self._notify = facts, prepared, notify
        self._neighbours = Neighbours(exchange, connect, self.tell)
        self._sessions: dict[str, Session] = {}
        """The one that was computed for last is the last."""
        self.lost: set[str] = set()
        """Peers that were lost, and not found since."""

    def take(self, message: Message) -> None:
        """Take in a message; what is wrong with it is told to whoever sent it."""
        if message.key == LOST:
            self.lost.add(message.peer)
            self._neighbours.lost(message.peer)
            self._lose(message.peer)
        elif message.key == FOUND:
            self.lost.discard(message.peer)
            self._neighbours.found(message.peer)
        else:
            try:
                self._obey(message, fields_of(message.head, where=f"message of {message.peer}"))
            except ClosedError:
                raise
            except (StiError, MemoryError) as error:
                why = words(error)
                self._notify(f"refused: {why}")
                # Who answers an answer is answered for ever; failures are not answered at all.
                if message.head.get("is") in (None, commands.HIDDEN):
                    self.tell(message.peer, message.key, failure(why))

    def next(self) -> Session | None:
        """The session whose first run is next; None where nothing can be done."""
        waiting = [item for item in self._sessions.values() if item.runs]
        for session in waiting:
            if session.runs[0].has_input:
                return session
        return waiting[0] if len(waiting) == 1 else None

    def other_can_go_on(self, session: Session) -> bool:
        """Whether the first run of another session has what it starts from."""
        others = (item for item in self._sessions.values() if item is not session)
        return any(item.runs and item.runs[0].has_input for item in others)

    def computed(self, session: Session, due: DueRun) -> None:
        """A run is over; whoever waits for longer is next."""
        session.give_up(due)
        if self._sessions.get(session.key) is session:
            self._sessions[session.key] = self._sessions.pop(session.key)

    def fail(self, session: Session, due: DueRun, why: str, *, without: str = "") -> None:
        """Give up a run, and tell the controller, and whoever waits for hidden states, that none
        come.

        Args:
            without: the device that was waited for in vain, if that is why.
        """
        session.give_up(due)
        number, after = due.run.number, due.part.wanted.after
        self._notify(f"run {number} of {session.controller} failed: {why}")
        for peer in {session.controller, after} - {""}:
            self.tell(peer, run_key(session.key, number), failure(why, without=without))

    def tell(self, peer: str, key: str, head: Mapping[str, Any]) -> None:
        """Send a word to a peer, if it is there."""
        try:
            self._exchange.send(peer, key, head)
        except (PeerError, InputError):
            self._notify(f"{peer} cannot be told: {head.get('why', head.get('is'))}")

    def _obey(self, message: Message, fields: JsonFields) -> None:
        """Do what a peer asks for.

        Raises:
            StiError: why it cannot be done.
        """
        asked = fields.raw("do")
        if asked == commands.ECHO:
            fields.only("do")
            self._exchange.send(message.peer, message.key, {"is": commands.ECHO}, message.arrays)
            return
        if asked == commands.HELLO:
            self._greet(message, fields.only("do", "facts"))
            return
        if fields.has("is"):
            self._take_result(message, fields)
            return
        session = self._sessions.get(session_of(message.key) or "")
        if session is None or session.controller != message.peer:
            raise PeerError(f"{message.peer}: says hello first in a session of its own")
        if asked == commands.PREPARE:
            wanted = Prepare.from_json(fields, message.arrays)
            if self._exchange.name in (wanted.before, wanted.after):
                raise PeerError(f"{self._exchange.name}: is no neighbour of its own")
            self._prepare(session, message.key, wanted)
        elif asked == commands.RUN:
            most = self._reader.manifest.dimensions.max_tokens
            session.add_run(Run.from_json(fields, most_tokens=most), message.arrays)
        elif asked == commands.DROP:
            fields.only("do", "number")
            session.give_up_all(fields.integer("number", most=commands.MOST_NUMBER))
        elif asked == commands.REACH:
            self._reach(session, message.key, fields.only("do", "name", "address"))
        else:
            raise fields.fail("do", "something that a controller may ask for")

    def _greet(self, message: Message, fields: JsonFields) -> None:
        """A controller says who it is."""
        where = f"controller {message.peer}"
        key = session_of(message.key)
        if key is None:
            raise PeerError(f"{where}: {message.key!r} is no name of a session")
        theirs = Facts.from_json(fields.object("facts").members(), where=where)
        why = mismatch(theirs, self._facts, name=self._exchange.name)
        if why is not None:
            raise PeerError(why)
        known = self._sessions.get(key)
        if known is not None and known.controller != message.peer:
            raise PeerError(f"{where}: the session is that of {known.controller}")
        for session in list(self._sessions.values()):
            if session.controller == message.peer:  # an earlier life of it
                self._forget(session)
        while len(self._sessions) >= MOST_SESSIONS:
            session = next(iter(self._sessions.values()))
            for due in list(session.runs):
                self.fail(session, due, f"{MOST_SESSIONS} other controllers came since")
            self._forget(session)
        self._sessions[key] = Session(key, message.peer, self._reader.manifest)
        self._notify(f"{where} is here")
        told = {"is": commands.HELLO, "facts": self._facts.to_json()}
        self._exchange.send(message.peer, message.key, told)

    def _reach(self, session: Session, key: str, fields: JsonFields) -> None:
        """Get to know another worker, and measure the way to it."""
        name = fields.text("name")
        if not is_device_name(name) or name == self._exchange.name:
            raise fields.fail("name", "the name of another device")
        address = fields.text("address")
        self._neighbours.reach(name, address, asker=session.controller, key=key)

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
        self._prepared(ready)
        told = {"is": commands.PREPARE, "memory_bytes": ready.memory_bytes}
        self.tell(session.controller, key, told)

    def _take_result(self, message: Message, fields: JsonFields) -> None:
        """Another device answers an echo, sends hidden states, or says that none will come."""
        kind, number = fields.raw("is"), run_number(message.key)
        if number is None or kind not in (commands.HIDDEN, commands.FAILED):
            self._neighbours.take(message)
            return
        session = self._sessions.get(session_of(message.key) or "")
        if session is None:
            raise PeerError(f"{message.peer}: run {number} is of a session that is not here")
        if kind == commands.FAILED:
            for item in list(session.runs):
                if item.run.number == number and item.needs(message.peer):
                    session.give_up(item)  # the controller was told by the device that failed
            return
        fields.only("is")
        due = session.due_for(number, message)
        if due is not None:
            try:
                session.take_hidden(due, message)
            except PeerError as error:
                self.fail(session, due, str(error), without=message.peer)
                raise

    def _lose(self, peer: str) -> None:
        """Give up what cannot go on without a peer."""
        for session in list(self._sessions.values()):
            if session.controller == peer:
                self._notify(f"controller {peer} is lost")
                self._forget(session)
                continue
            for due in list(session.runs):
                if due.needs(peer):
                    self.fail(session, due, f"{peer} is lost", without=peer)

    def _forget(self, session: Session) -> None:
        """Nothing of a session is to be computed any more."""
        session.give_up_all()
        del self._sessions[session.key]


def words(error: Exception) -> str:
    """An error for a peer."""
    return "there is not enough memory" if isinstance(error, MemoryError) else str(error)
