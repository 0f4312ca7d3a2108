"""Which other devices an engine may use, as one value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sti.errors import InputError
from sti.planning.chain_search import MOST_DEVICES
from sti.planning.stages import STRATEGIES

if TYPE_CHECKING:
    from sti.exchange.interface import Exchange

AUTO = "auto"
"""Strategy: the fastest by prediction, this machine alone unless others are worth it."""
ZEROMQ, MPI = "zeromq", "mpi"
ENGINES = (ZEROMQ, MPI)
"""What carries messages between devices."""


class DeviceOptions(NamedTuple):
    """Other devices, and how they are used; ``Engine.open`` describes them."""

    config: str | Path | None = None
    """The file that names them; None with MPI, whose ranks are the devices."""
    keys: str | Path | None = None
    """The folder of this machine's keys; None: devices on this machine alone."""
    strategy: str = AUTO
    engine: str = ZEROMQ
    exchange: Exchange | None = None
    """Reaches the devices, instead of one that is made; closed with the engine. With MPI it is the
    ranks' own."""
    ranks: tuple[str, ...] = ()
    """With MPI, the names of the other ranks."""

    @property
    def wanted(self) -> str | None:
        """The strategy that is to be taken whatever it costs; None for the fastest."""
        return None if self.strategy == AUTO else self.strategy

    def validate(self) -> None:
        """Refuse what cannot be used.

        Raises:
            InputError: an unknown strategy or engine, no file of devices, or too many ranks.
        """
        known = (AUTO, *STRATEGIES)
        if self.strategy not in known:
            raise InputError(
                f"strategy must be one of {', '.join(known)}; found {self.strategy!r:.60}"
            )
        if self.engine not in ENGINES:
            raise InputError(
                f"engine must be one of {', '.join(ENGINES)}; found {self.engine!r:.60}"
            )
        if self.config is None and self.engine == ZEROMQ:
            raise InputError(
                "no file names the devices; write a devices.toml and give it (`devices`, --devices)"
            )
        if self.engine == MPI and self.exchange is None:
            raise InputError(
                "the engine mpi is for commands under mpiexec: `mpiexec -n 4 sti run PACK ... "
                "--engine mpi`; from Python, give DeviceOptions an MpiExchange and its ranks"
            )
        if len(self.ranks) >= MOST_DEVICES:
            raise InputError(
                f"{len(self.ranks)} ranks beside this one; a chain has at most {MOST_DEVICES - 1} "
                f"beside this machine: start at most {MOST_DEVICES}"
            )
        if self.engine == MPI and (self.config is not None or self.keys is not None):
            raise InputError(
                "with MPI the ranks of the job are the devices; leave devices (--devices) and keys "
                "(--keys) out"
            )
