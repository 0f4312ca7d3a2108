"""The workers that a controller knows: which are there, what they are, and how far away.

In: their addresses, an exchange, what runs took. Out: the ``Fleet`` that plans are made for. A
device that is lost, or that refuses, is left out and told, and is asked again when it is found; one
that failed is asked again after a while. No run waits for more than a moment for a device to
introduce itself: it may be busy, and is used as soon as it has answered. Not thread-safe.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from sti.devices import commands
from sti.devices.commands import StageReport
from sti.devices.facts import Facts, mismatch
from sti.devices.peer import AGAIN_S, NOT_FOUND, Peer
from sti.devices.questions import Heard, Questions
from sti.devices.unknown_hosts import UnknownHosts
from sti.devices.ways import Ways
from sti.errors import ClosedError, DeadlineError, InputError, PeerError, StiError
from sti.exchange.interface import FOUND, LOST, Exchange, Message
from sti.json_fields import JsonFields
from sti.notices import Notify
from sti.planning.lane_threads import measured_choices
from sti.planning.links import Link
from sti.planning.plan import LOCAL
from sti.planning.stage_times import Member
from sti.planning.strategies import Fleet

FOUND_WITHIN_S = 2.0
"""How long devices may take to be there when an engine is opened, and to reach each other."""
ANSWERS_WITHIN_S = 10.0
"""How long a device may take then to say what it is: it may be amid a run."""
MOMENT_S = 0.1
"""How long a run waits for devices that have just come: they answer in less, unless they are
busy."""


class Peers:
    """The workers of one controller.

    Args:
        exchange: reaches them; stays the caller's.
        addresses: name to address.
        mine: what this machine is.
        connect: makes the peer of a name reachable at an address; called by another thread, too,
            where the host is not known at first.
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
        self._questions = Questions(exchange, self.session)
        self._ways = Ways(self._questions, addresses, notify)
        self._kept: list[Message] = []
        """What came amid a run and has time until after it."""
        self._hosts = UnknownHosts(connect)
        for peer in self.named.values():
            try:
                self._hosts.connect(peer.name, peer.address)
            except PeerError as error:  # of a host that is off, say: others are there
                self._leave_out(peer, str(error))

    def meet(self, *, within_s: float = FOUND_WITHIN_S) -> None:
        """Wait for devices to be there, and get to know them."""
        begun_s = time.monotonic()
        while True:
            away = any(not peer.is_there for peer in self.named.values())
            if not away and not self._questions.are_open():
                break
            end_s = begun_s + within_s
            if self._unknown():
                end_s = begun_s + ANSWERS_WITHIN_S
            elif self._questions.are_open():
                end_s = max(end_s, self._questions.asked_s + FOUND_WITHIN_S)
            try:
                self.take(self.exchange.receive(deadline=end_s))
            except PeerError:
                break
        for peer in self.named.values():
            if not peer.is_there and peer.why == NOT_FOUND:
                self._leave_out(peer, self._not_found(peer))
        for peer in self._unknown():
            peer.why = "it has not said yet what it is; it may be busy"
            self._notify(f"device {peer.name} is not used: {peer.why}")

    def catch_up(self, *, moment_s: float = MOMENT_S) -> None:
        """Take in who was found or lost since, and what was answered.

        Args:
            moment_s: for how long to wait where something was asked only now.
        """
        self._questions.begin_round()
        self._look_for_hosts()
        now_s = time.monotonic()
        try:
            kept, self._kept = self._kept, []
            for message in kept:
                self.take(message)
            for peer in self.named.values():
                if peer.is_there and peer.again_s is not None and now_s > peer.again_s:
                    self._greet(peer)
            self._ways.ask_again(now_s)
            while True:
                end_s = now_s + (moment_s if self._questions.are_new else 0.0)
                self.take(self.exchange.receive(deadline=end_s))
        except PeerError:
            return  # that is all
        except ClosedError as error:
            for peer in self.named.values():
                if peer.is_there:
                    peer.is_there = False
                    self._leave_out(peer, str(error))

    def close(self) -> None:
        """Look for nobody any more. The exchange stays the caller's. Idempotent."""
        self._hosts.close()

    def take(self, message: Message) -> None:
        """Take in a message that belongs to no run."""
        peer = self.named.get(message.peer)
        if peer is None:
            return
        if message.key == LOST:
            peer.is_there = False
            self._kept = [kept for kept in self._kept if kept.peer != peer.name]
            for other in self.named.values():
                other.forgive(time.monotonic())
            self._leave_out(peer, f"it was lost: {message.head.get('why', 'no reason')}")
        elif message.key == FOUND:
            peer.is_there, peer.pause_s = True, AGAIN_S
            self._greet(peer)
        else:
            try:
                self._questions.take(message)
            except StiError as error:
                self.fail(peer.name, str(error))

    def note(self, message: Message) -> None:
        """Take in what came amid a run and is not part of it: a loss at once, and what may take
        time when the run is over.
        """
        if message.key == FOUND or self._questions.has(message):
            self._kept.append(message)
        else:
            self.take(message)

    def ask(
        self, name: str, head: Mapping[str, Any], heard: Heard, arrays: Sequence[NDArray[Any]] = ()
    ) -> None:
        """Ask a device for something; one that answers with a failure is left out.

        Raises:
            PeerError, InputError: as ``Questions.ask``.
        """
        self._questions.ask(name, head, heard, arrays)

    def fail(self, name: str, why: str) -> None:
        """A device did not do what it was asked for: it is left out, and asked again in a while."""
        peer = self.named[name]
        self._leave_out(peer, why)
        peer.fail(time.monotonic())

    def check_ready(self, devices: Collection[str]) -> None:
        """Refuse to go on with devices that are not used any more.

        Raises:
            PeerError: says which, and why.
        """
        for device in devices:
            peer = self.named[device]
            if not peer.is_ready:
                raise PeerError(_of(device, peer.why))

    def part(self, one: str, other: str) -> None:
        """Two devices have lost each other, as one of them said."""
        self._ways.cut(one, other)

    def fleet(self, local: Member, link_type: str) -> Fleet:
        """The devices that a run may use now, this machine first."""
        ready = [peer for peer in self.named.values() if peer.is_ready]
        links: dict[tuple[str, str], Link] = {}
        for peer in ready:
            assert peer.link is not None, "it is ready"
            link = _slowed(peer.link, peer.link_factor)
            links[LOCAL, peer.name] = links[peer.name, LOCAL] = link
        for (one, other), between in self._ways.links.items():
            factor = max(self.named[one].link_factor, self.named[other].link_factor)
            links[one, other] = links[other, one] = _slowed(between, factor)
        return Fleet((local, *(peer.member for peer in ready)), links, link_type)

    def learn(self, device: str, report: StageReport, predicted_s: float) -> None:
        """A stage took so long.

        Args:
            report: of the device.
            predicted_s: of its own work, with the wait that there was.
        """
        if device in self.named:
            self.named[device].learn(report, predicted_s)

    def learn_links(self, devices: set[str], ratio: float) -> None:
        """Sending between these devices took so many times what was predicted."""
        for name in devices & set(self.named):
            self.named[name].learn_link(ratio)

    def was_late(self, device: str) -> None:
        """A device let a run wait in vain."""
        if device in self.named:
            self.named[device].was_late(time.monotonic())

    @property
    def factors(self) -> tuple[float, ...]:
        """The corrections of all devices and their links, as far as they are ready."""
        ready = [peer for peer in self.named.values() if peer.is_ready]
        return tuple(factor for peer in ready for factor in (peer.factor, peer.link_factor))

    @property
    def why_none(self) -> str:
        """Why no device is used, each with its reason."""
        return "; ".join(_of(peer.name, peer.why_unused) for peer in self.named.values())

    def measure_again(self, but: Collection[str]) -> None:
        """Measure the links to devices that runs have shown to be slow again. What they showed of
        the links is forgotten then, and half of what they showed of the devices, so that they are
        tried again.

        Args:
            but: devices that are in use, of which runs show more.
        """
        for peer in self.named.values():
            if peer.is_ready and peer.is_doubted and peer.name not in but:
                self._measure(peer)

    def _look_for_hosts(self) -> None:
        for name, why in self._hosts.look_again().items():
            peer = self.named[name]
            if why is not None:
                self._leave_out(peer, why)
            elif not peer.is_there:
                peer.why = f"it was not found at {peer.address} yet"

    def _greet(self, peer: Peer) -> None:
        """Ask a device what it is, and again where it has not answered for long."""
        peer.again_s = time.monotonic() + ANSWERS_WITHIN_S
        self._questions.drop(peer.name)
        hello = {"do": commands.HELLO, "facts": self._mine.to_json()}
        try:
            self._questions.ask(peer.name, hello, lambda fields: self._heard(peer, fields))
        except (PeerError, InputError) as error:
            self.fail(peer.name, str(error))

    def _heard(self, peer: Peer, fields: JsonFields) -> None:
        """A device has said what it is."""
        facts = Facts.from_json(fields.object("facts").members(), where=f"device {peer.name}")
        why = mismatch(self._mine, facts, name=peer.name)
        if why is None and not any(kind.storage for kind in measured_choices(facts.profile)):
            why = f"{peer.name} was not measured with a thread that reads ahead"
        if why is not None:
            self._leave_out(peer, why)
            return
        peer.facts, peer.link, peer.factor = facts, None, 1.0
        peer.why = "the way to it was not measured yet"
        peer.met += 1
        self._measure(peer)

    def _measure(self, peer: Peer) -> None:
        def heard(link: Link) -> None:
            is_new = peer.link is None
            peer.link, peer.link_factor, peer.factor = link, 1.0, peer.factor**0.5
            peer.again_s = None
            if is_new and peer.facts is not None:
                layers = f"layers {peer.facts.first} to {peer.facts.last}"
                self._notify(f"device {peer.name} is here: {layers}, {peer.facts.machine}")
                others = [item.name for item in self.named.values() if item.is_ready]
                self._ways.join(peer.name, [name for name in others if name != peer.name])

        with suppress(PeerError):  # it is lost, which is told
            self._questions.measure(peer.name, heard)

    def _unknown(self) -> list[Peer]:
        """Devices that are there and have not said what they are, or were not measured."""
        return [
            peer
            for peer in self.named.values()
            if peer.is_there and not peer.is_ready and self._questions.are_open(peer.name)
        ]

    def _not_found(self, peer: Peer) -> str:
        """Why a device is not there, as far as is known."""
        why = f"it was not found at {peer.address}"
        try:
            self.exchange.receive(key=FOUND, peer=peer.name, deadline=0.0)
        except DeadlineError:
            return why
        except StiError as error:
            return f"{why}: {str(error).removeprefix(f'{peer.name}: ')}"
        return why

    def _leave_out(self, peer: Peer, why: str) -> None:
        peer.facts = peer.link = peer.again_s = None
        peer.why = why
        self._questions.drop(peer.name)
        self._ways.forget(peer.name)
        self._notify(f"device {peer.name} is not used: {why}")


def _of(name: str, why: str) -> str:
    """What is said of a device, with its name in front, once."""
    return why if why.startswith((f"{name} ", f"{name}: ")) else f"{name}: {why}"


def _slowed(link: Link, factor: float) -> Link:
    return Link(link.delay_s * factor, link.bytes_per_s / factor)
