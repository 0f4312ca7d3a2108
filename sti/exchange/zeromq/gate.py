"""Who is let in: ZeroMQ asks it for every connection that proves to have a key (ZAP, RFC 27).

In: public keys. Out: the name of the device that has the key, which every message of the connection
carries from then on, or a refusal. Its socket is read by the thread that owns all others; zmq.auth
would start a thread with an event loop of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import zmq
from zmq.utils import z85

from sti.exchange.zeromq.notices import Notices
from sti.exchange.zeromq.sockets import ZAP_DOMAIN

_VERSION = b"1.0"
_PLACE = "inproc://zeromq.zap.01"


class Gate:
    """Answers for one context.

    Args:
        context: has no other gate.
        public: of each device that may connect, its key in Z85, by name.
        notices: told of strangers.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        public: Mapping[str, bytes],
        notices: Notices,
    ) -> None:
        self._names = {z85.decode(key): name for name, key in public.items()}
        self._notices = notices
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(_PLACE)

    def answer(self) -> None:
        """Answer what is asked, if anything is."""
        try:
            asked = self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        version, request, domain, address, _, mechanism, *credentials = (*asked, *[b""] * 6)[:7]
        name = None
        if (version, domain, mechanism, len(asked)) == (_VERSION, ZAP_DOMAIN, b"CURVE", 7):
            name = self._names.get(credentials[0])
        if name is None:
            where = address.decode("ascii", "replace")
            self._notices.tell(
                "gate",
                f"a device at {where} was refused: its key is not known here; copy the folder of "
                "keys that `sti devices init` made for it to that device, or this one's here",
            )
        status = (b"200", b"OK", name.encode("ascii")) if name else (b"400", b"unknown key", b"")
        self.socket.send_multipart([_VERSION, request, *status, b""], zmq.NOBLOCK)
