"""An ``Exchange`` over ZeroMQ: between any devices, encrypted, with lost peers noticed and found.

In: names, addresses and keys of devices. Out: the exchange. A member listens, connects to others,
or both; a peer that connected is answered over its own connection, so that one side of each pair
has to listen. A peer that is killed is lost within milliseconds, one that is frozen or unplugged
within ``silence_s`` and a heartbeat, on both sides.

Keys are needed wherever a connection leaves the machine. Without them, on loopback, any user of the
machine may claim any name. With them strangers get nothing delivered; what they can take is a
descriptor and at most some 70 KB a connection, for ``HANDSHAKE_S``. A device that has keys cannot
pass for another one, and what it sends is bounded by the mailbox; but ZeroMQ keeps the parts of a
message until the last one, so a device that was taken over can still take memory: remove its key.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from sti.errors import InputError
from sti.exchange.frames import encode
from sti.exchange.interface import NOTHING, Message
from sti.exchange.mailbox import MOST_HELD_BYTES, Mailbox
from sti.exchange.names import check_name
from sti.exchange.zeromq.addresses import Address, look_up
from sti.exchange.zeromq.carrier import Carrier
from sti.exchange.zeromq.keys import Keys
from sti.exchange.zeromq.library import check_library
from sti.exchange.zeromq.outbox import Outbox
from sti.notices import Notify, log_notice

SILENCE_S = 0.6
LEAST_SILENCE_S, MOST_SILENCE_S = 0.05, 600.0


class ZmqExchange:
    """An ``Exchange`` over ZeroMQ; its thread and sockets live until ``close``.

    Args:
        name: of this member; with keys, the one they are for.
        listen: ``ADDR:PORT`` where peers connect; port 0 for any that is free (``address``).
        peers: ``HOST:PORT`` of each peer to connect to, by name.
        keys: needed unless every address is loopback.
        notify: told of refusals, strangers, and messages that were dropped; called in the
            exchange's thread, and what it raises ends that, and so closes the exchange.
        silence_s: for which a peer may be silent before it is lost. A frame of 64 KiB has to pass
            meanwhile, in both directions: more is needed on links slower than 2 Mbit/s.
        most_bytes: what messages of one peer may take until they are received, and about as much
            what waits to be sent to one.

    Raises:
        InputError: a name or address that cannot be used, keys that are missing or of another name.
        RunError: the system gives no more descriptors or threads.
    """

    def __init__(
        self,
        name: str,
        *,
        listen: str | None = None,
        peers: Mapping[str, str] = NOTHING,
        keys: Keys | None = None,
        notify: Notify = log_notice,
        silence_s: float = SILENCE_S,
        most_bytes: int = MOST_HELD_BYTES,
    ) -> None:
        check_name(name)
        check_library()
        if keys is not None and keys.name != name:
            raise InputError(f"{name}: the keys are those of {keys.name}")
        if not LEAST_SILENCE_S <= silence_s <= MOST_SILENCE_S:
            raise InputError(
                f"silence_s {silence_s!r}: from {LEAST_SILENCE_S} to {MOST_SILENCE_S:g} seconds"
            )
        self._name, self._keys, self._process = name, keys, os.getpid()
        at = None if listen is None else self._reachable(listen, "listens")
        known = {peer: self._known(peer, address) for peer, address in peers.items()}
        self._mailbox = Mailbox(name, most_bytes=most_bytes)
        self._outbox = Outbox(self._mailbox, most_bytes=most_bytes)
        self._carrier = Carrier(
            name,
            self._mailbox,
            self._outbox,
            listen=at,
            keys=keys,
            notify=notify,
            silence_s=silence_s,
        )
        self._address = self._carrier.address
        for peer, address in known.items():
            self._carrier.dial(peer, address)

    @property
    def name(self) -> str:
        """Of this member."""
        return self._name

    @property
    def address(self) -> str | None:
        """``ADDR:PORT`` where this member listens; None where it does not."""
        return None if self._address is None else str(self._address)

    def connect(self, peer: str, address: str) -> None:
        """Connect to a peer, found as soon as it is there; if it had another address, lose that.

        Args:
            address: ``HOST:PORT``; a name is looked up now, which may take some seconds.

        Raises:
            InputError: a name or address that cannot be used, or keys that are missing.
            ClosedError: this exchange was closed.
        """
        self._mailbox.check_open()
        self._carrier.dial(peer, self._known(peer, address))

    def disconnect(self, peer: str) -> None:
        """Give up a peer that this member connects to; it is lost. One that connected by itself
        stays.

        Raises:
            ClosedError: this exchange was closed.
        """
        self._mailbox.check_open()
        self._carrier.hang_up(peer)

    def send(
        self,
        peer: str,
        key: str,
        head: Mapping[str, Any] = NOTHING,
        arrays: Sequence[NDArray[Any]] = (),
    ) -> None:
        """As ``Exchange.send``."""
        self._mailbox.check_peer(peer)
        self._outbox.put(peer, encode(key, head, arrays))
        self._carrier.wake()

    def receive(
        self,
        *,
        key: str | None = None,
        peer: str | None = None,
        watch: Collection[str] = (),
        deadline: float | None,
    ) -> Message:
        """As ``Exchange.receive``."""
        return self._mailbox.receive(key=key, peer=peer, watch=watch, deadline=deadline)

    def forget(self, key: str) -> None:
        """As ``Exchange.forget``."""
        self._mailbox.forget(key)

    def close(self) -> None:
        """As ``Exchange.close``. In a forked child nothing is closed: it is the parent's."""
        if os.getpid() == self._process:
            self._mailbox.close()
            self._carrier.close()

    def _known(self, peer: str, address: str) -> Address:
        check_name(peer)
        if peer == self._name:
            raise InputError(
                f"{peer}: this device has that name itself; give each device keys (--keys DIR) of "
                "its own"
            )
        if self._keys is not None and peer not in self._keys.public:
            raise InputError(
                f"{peer}: has no key here; make one with `sti devices init --keys DIR {peer}`, and "
                "copy the folders that it names"
            )
        return self._reachable(address, f"connects to {peer}")

    def _reachable(self, text: str, what: str) -> Address:
        address = look_up(text)
        if self._keys is None and not address.is_local:
            raise InputError(
                f"{self._name} {what} at {text}, beyond this machine: that needs keys (--keys "
                "DIR); make them with `sti devices init`"
            )
        return address
