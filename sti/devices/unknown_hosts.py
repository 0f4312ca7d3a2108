"""Devices whose hosts are not known yet, such as a board that is off: looked up again beside runs.

In: names and addresses of devices; how one is made reachable, which may take seconds. Effect: they
are reachable once their hosts are known. No run waits for it. For one thread, beside that of the
look-up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sti.errors import InputError, PeerError, RunError, StiError
from sti.storage.threads import start_thread

AGAIN_S = 10.0
"""How long after a look-up, at the earliest, the next one begins."""


class UnknownHosts:
    """The devices of one controller that are not reachable yet.

    Args:
        connect: makes the peer of a name reachable at an address; called by another thread, too.
            Raises ``PeerError`` where the host is not known.
    """

    def __init__(self, connect: Callable[[str, str], None]) -> None:
        self._connect = connect
        self._addresses: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._again_s = 0.0
        self._known: dict[str, str | None] = {}
        self._ends = False

    def connect(self, name: str, address: str) -> None:
        """Make a device reachable, now or as soon as its host is known.

        Raises:
            PeerError: it is not known now.
        """
        try:
            self._connect(name, address)
        except PeerError:
            self._addresses[name] = address
            self._again_s = time.monotonic() + AGAIN_S
            raise

    def look_again(self) -> dict[str, str | None]:
        """Begin to look up what is not known, if it is time to.

        Returns:
            Devices whose hosts are known by now, each once: None, or why they cannot be reached all
            the same.
        """
        if self._thread is not None and self._thread.is_alive():
            return {}
        known, self._known = self._known, {}
        if self._addresses and time.monotonic() >= self._again_s:
            self._begin()
        return known

    def close(self) -> None:
        """Look nothing up any more, but what is being looked up. Idempotent."""
        self._ends = True
        self._addresses = {}

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._look, name="sti-hosts", daemon=True)
        self._again_s = time.monotonic() + AGAIN_S
        with suppress(RunError):  # there are no threads to spare: later, then
            start_thread(self._thread)

    def _look(self) -> None:
        for name, address in list(self._addresses.items()):
            if self._ends:
                return
            try:
                self._connect(name, address)
            except InputError as error:
                self._known[name] = str(error)
            except (StiError, OSError):
                continue  # still not known; no threads to spare; closed meanwhile
            else:
                self._known[name] = None
            self._addresses.pop(name, None)
        self._again_s = time.monotonic() + AGAIN_S
