"""Engine options that do not depend on the target, as one value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sti.backend.interface import Backend
from sti.device.host import check_threads
from sti.device.profile import DeviceProfile
from sti.engine.device_options import DeviceOptions
from sti.errors import InputError
from sti.notices import Notify, log_notice
from sti.planning.downgrade import AS_PLANNED, Adapt
from sti.storage.reader import Reader
from sti.storage.watched_reader import READ_TIMEOUT_S


class EngineOptions(NamedTuple):
    """What ``Engine.open`` takes besides the pack and the target; described there."""

    threads: int | None = None
    """Compute threads; None: what suits this machine and the pack."""
    verify: bool = False
    strict: bool = False
    comparable: bool = True
    tokens: int | None = None
    adapt: bool = True
    yield_memory: bool = True
    profile: DeviceProfile | None = None
    storage: Reader | None = None
    """Closed with the engine."""
    notify: Notify = log_notice
    config: str | Path | None = None
    """Where names of targets are looked up."""
    before_bytes: int | None = None
    """Anonymous memory of the process before the pack was opened; None: unknown."""
    check: bool = True
    """Compare what is read with its checksum. Benchmarks alone go without, to price it."""
    wrap_backend: Callable[[Backend], Backend] | None = None
    """Makes of the back end what runs compute with, and what closes it. Benchmarks alone emulate
    slower processors so; ``profile`` is one of such a processor."""
    history: bool = True
    devices: DeviceOptions | None = None
    """Other devices that runs may use; None: this machine alone."""
    read_timeout_s: float = READ_TIMEOUT_S

    @property
    def keeps_history(self) -> bool:
        """Whether runs are kept: they are what a user ran, on this machine as it is."""
        own = self.profile is None and self.storage is None
        return self.history and self.adapt and self.check and own

    def may_differ(self, task: str) -> bool:
        """Whether plans of such a pack may differ with the length of texts, and change."""
        return task != "embedding" or not self.comparable

    def check_task(self, task: str, *, where: str) -> None:
        """Refuse what would say nothing for such a pack.

        Raises:
            InputError: a length is given for the one plan of embeddings, and there is none.
        """
        if self.tokens is not None and self.may_differ(task):
            raise InputError(
                f"{where}: tokens (--tokens) says for which length the one plan of comparable "
                "embeddings is made; plans of this pack are made for each length: leave it out"
            )

    def adaptation(self, task: str, due: float | None, floor: float) -> Adapt:
        """What a run of such a pack may leave out, whose answer is due at ``perf_counter`` time."""
        if self.strict or not self.may_differ(task):
            return AS_PLANNED
        return Adapt(damaged=True, deadline=due if self.adapt else None, floor=floor)

    def validate(self) -> None:
        """Refuse what cannot be used.

        Raises:
            InputError: unusable threads, a storage or a wrapped back end without a profile of it,
                or a value of the wrong type.
        """
        check_threads(self.threads)
        if self.devices is not None:
            self.devices.validate()
        if self.tokens is not None and not (type(self.tokens) is int and self.tokens >= 2):
            raise InputError(f"tokens must be a number of at least 2; found {self.tokens!r:.60}")
        if not isinstance(self.profile, DeviceProfile | None):
            raise InputError(f"profile must be a DeviceProfile; found {self.profile!r:.60}")
        if not callable(self.notify):
            raise InputError(f"notify must take a line of text; found {self.notify!r:.60}")
        if self.wrap_backend is not None and self.profile is None:
            raise InputError("a back end that is wrapped needs a profile of what it then takes")
        if self.storage is not None and self.profile is None:
            raise InputError(
                "a custom storage needs a profile measured with it; make one with "
                "sti.device.emulated_storage.with_storage"
            )
