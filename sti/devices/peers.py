"""The workers that a controller knows: which are there, what they are, and how far away.

In: their addresses, an exchange, what runs took. Out: the ``Fleet`` that plans are made for. A
device that is lost, or that refuses, is left out and told, and is asked again when it is found. Not
thread-safe.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sti.devices import commands
from sti.devices.commands import StageReport, fields_of
from sti.devices.facts import Facts, mismatch
from sti.devices.links import measured_link
from sti.errors import PeerError, StiError
from sti.exchange.interface import FOUND, LOST, Exchange, Message
from sti.json_fields import JsonFields
from sti.notices import Notify
from sti.planning.lane_threads import measured_choices
from sti.planning.links import Link
from sti.planning.plan import LOCAL
from sti.planning.stage_times import Member
from sti.planning.strategies import Fleet

FOUND_WITHIN_S = 2.0
"""How long devices may take to be there when an engine is opened."""
ANSWERS_WITHIN_S = 10.0
"""How long a device may take to answer: it may be amid a run."""
_NEW = 0.3
"""What part of a correction the last run has."""
_LEAST_FACTOR, _MOST_FACTOR = 0.2, 20.0
_DOUBTED = 1.5
"""A correction beyond which a device or a link may have been used for the last time."""
_LATE_FACTOR = 2.0
"""By how much a device that let a run wait in vain is taken to be slower."""


@dataclass(slots=True)
class Peer:
    """A worker, as its controller knows it."""

    name: str
    address: str
    facts: Facts | None = None
    """None until it has said what it is."""
    link: Link | None = None
    """From this machine."""
    met: int = 0
    """How often it was met: what it had ready before is gone then."""
    why: str = "it was not found"
    """Why it is not used, where it is not."""
    factor: float = 1.0
    """What its stages took, over what was predicted."""
    link_factor: float = 1.0
    """What sending from or to it took, over what was measured."""

    @property
    def is_ready(self) -> bool:
        """Whether runs may use it."""
        return self.facts is not None and self.link is not None


class Peers:
    """The workers of one controller.

    Args:
        exchange: reaches them; stays the caller's.
        addresses: name to address.
        mine: what this machine is.
        connect: makes the peer of a name reachable at an address.
        notify: told of who is there, and why others are not used.
    """

    def __init__(
        self,
        exchange: Exchange,
        addresses: Mapping[str, str],
        mine: Facts,
        *,
        connect: Callable[[str, str], None],
        notify: Notify,
    ) -> None:
        self.exchange, self._mine, self._notify = exchange, mine, notify
        self.session = secrets.token_hex(8)
        self.named = {name: Peer(name, address) for name, address in addresses.items()}
        self._between: dict[tuple[str, str], Link] = {}
        self._asked = 0
        """Questions so far."""
        for name, address in addresses.items():
            connect(name, address)

    def meet(self, *, within_s: float = FOUND_WITHIN_S) -> None:
        """Wait for devices to be there, and get to know them."""
        deadline = time.monotonic() + within_s
        missing = set(self.named)
        while missing:
            try:
                found = self.exchange.receive(key=FOUND, deadline=deadline)
            except PeerError:
                break
            missing.discard(found.peer)
            self._greet(found.peer)
        for name in sorted(missing):
            self._leave_out(name, f"it was not found at {self.named[name].address}")

    def note(self, message: Message) -> None:
        """Take in that a peer was found or lost."""
        if message.peer not in self.named:
            return
        if message.key == LOST:
            self._leave_out(message.peer, f"it was lost: {message.head.get('why', 'no reason')}")
        elif message.key == FOUND:
            self._greet(message.peer)

    def catch_up(self) -> None:
        """Take in who was found or lost since; waits for nothing but new devices' answers."""
        while True:
            try:
                message = self.exchange.receive(deadline=time.monotonic())
            except PeerError:
                return
            self.note(message)

    def fleet(self, local: Member, link_type: str) -> Fleet:
        """The devices that a run may use now, this machine first."""
        ready = [peer for peer in self.named.values() if peer.is_ready]
        links: dict[tuple[str, str], Link] = {}
        for peer in ready:
            assert peer.link is not None, "it is ready"
            link = _slowed(peer.link, peer.link_factor)
            links[LOCAL, peer.name] = links[peer.name, LOCAL] = link
        for (one, other), between in self._between.items():
            factor = max(self.named[one].link_factor, self.named[other].link_factor)
            links[one, other] = links[other, one] = _slowed(between, factor)
        return Fleet((local, *map(_member, ready)), links, link_type)

    def learn(self, device: str, report: StageReport, predicted_s: float) -> None:
        """A stage took so long.

        Args:
            report: of the device.
            predicted_s: of its own work, with the wait that there was.
        """
        peer = self.named.get(device)
        own_s = report.total_s - report.waited_s
        if peer is not None and predicted_s > 0.0:
            peer.factor = _moved(peer.factor, peer.factor * own_s / predicted_s)

    def learn_links(self, devices: set[str], ratio: float) -> None:
        """Sending between these devices took so many times what was predicted."""
        for name in devices & set(self.named):
            peer = self.named[name]
            peer.link_factor = _moved(peer.link_factor, peer.link_factor * ratio)

    def was_late(self, device: str) -> None:
        """A device let a run wait in vain."""
        peer = self.named.get(device)
        if peer is not None:
            peer.factor = min(_MOST_FACTOR, peer.factor * _LATE_FACTOR)

    @property
    def factors(self) -> tuple[float, ...]:
        """The corrections of all devices and their links, as far as they are ready."""
        ready = [peer for peer in self.named.values() if peer.is_ready]
        return tuple(factor for peer in ready for factor in (peer.factor, peer.link_factor))

    @property
    def is_doubted(self) -> bool:
        """Whether runs have shown a device or a link to be much slower than it was measured."""
        return any(factor > _DOUBTED for factor in self.factors)

    def measure_again(self) -> None:
        """Measure the links to all devices again. What runs showed of them is forgotten, and half
        of what they showed of the devices, so that they are tried again.
        """
        for peer in self.named.values():
            if peer.is_ready:
                try:
                    peer.link, peer.link_factor = measured_link(self.exchange, peer.name), 1.0
                    peer.factor = peer.factor**0.5
                except PeerError as error:
                    self._leave_out(peer.name, str(error))

    def ask(self, name: str, head: Mapping[str, object], *, within_s: float) -> JsonFields:
        """Ask a device for something outside of runs, and wait for its answer.

        Raises:
            PeerError: it refuses, is lost, or does not answer in time; names it.
        """
        key, self._asked = commands.ask_key(self.session, self._asked), self._asked + 1
        self.exchange.send(name, key, head)
        answer = self.exchange.receive(key=key, peer=name, deadline=time.monotonic() + within_s)
        fields = fields_of(answer.head, where=f"answer of {name}")
        if fields.raw("is") == commands.FAILED:
            raise PeerError(fields.text("why"))
        return fields

    def _greet(self, name: str) -> None:
        """Ask a device what it is, and measure the ways to it."""
        peer = self.named.get(name)
        if peer is None:
            return
        try:
            hello = {"do": commands.HELLO, "facts": self._mine.to_json()}
            fields = self.ask(name, hello, within_s=ANSWERS_WITHIN_S)
            facts = Facts.from_json(fields.object("facts").members(), where=f"device {name}")
            why = mismatch(self._mine, facts, name=name)
            if why is not None:
                raise PeerError(why)
            peer.link = measured_link(self.exchange, name)
            for other in self.named.values():
                if other is not peer and other.is_ready:
                    self._join(other, peer)
            peer.facts, peer.factor, peer.link_factor = facts, 1.0, 1.0
            peer.met += 1
        except StiError as error:
            self._leave_out(name, str(error))
        else:
            layers = f"layers {facts.first} to {facts.last}"
            self._notify(f"device {name} is here: {layers}, {facts.machine}")

    def _join(self, one: Peer, other: Peer) -> None:
        """Let two workers get to know each other, so that each can send to the other.

        Those that cannot reach each other are both of use, next to this machine.
        """
        reach = {"do": commands.REACH, "name": other.name, "address": other.address}
        try:
            fields = self.ask(one.name, reach, within_s=ANSWERS_WITHIN_S)
        except PeerError as error:
            self._notify(f"device {one.name} does not reach {other.name}: {error}")
            return
        self._between[one.name, other.name] = Link(
            fields.number("delay_s", least=0.0, most=ANSWERS_WITHIN_S),
            fields.number("bytes_per_s", least=1.0),
        )

    def _leave_out(self, name: str, why: str) -> None:
        peer = self.named[name]
        peer.facts = peer.link = None
        peer.why = why
        for pair in [pair for pair in self._between if name in pair]:
            del self._between[pair]
        self._notify(f"device {name} is not used: {why}")


def _member(peer: Peer) -> Member:
    facts = peer.facts
    assert facts is not None, "it is ready"
    # A thread that only reads is what reads ahead.
    first, *others = (kind for kind in reversed(measured_choices(facts.profile)) if kind.storage)
    return Member(
        peer.name,
        facts.profile,
        first,
        others=tuple(others),
        preload_bytes=facts.preload_bytes,
        room_bytes=facts.room_bytes,
        first=facts.first,
        last=facts.last,
        factor=peer.factor,
    )


def _slowed(link: Link, factor: float) -> Link:
    return Link(link.delay_s * factor, link.bytes_per_s / factor)


def _moved(before: float, now: float) -> float:
    """A correction that follows what runs show, without following each of them all the way."""
    found = before + _NEW * (now - before)
    return min(_MOST_FACTOR, max(_LEAST_FACTOR, found))
