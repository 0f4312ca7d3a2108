"""Engine options that do not depend on the target, as one value."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sti.device.host import check_threads
from sti.device.profile import DeviceProfile
from sti.errors import InputError
from sti.notices import Notify, log_notice
from sti.storage.reader import Reader


class EngineOptions(NamedTuple):
    """What ``Engine.open`` takes besides the pack and the target; described there."""

    threads: int | None = None
    """Compute threads; None: what suits this machine and the pack."""
    verify: bool = False
    strict: bool = False
    comparable: bool = True
    profile: DeviceProfile | None = None
    storage: Reader | None = None
    """Closed with the engine."""
    notify: Notify = log_notice
    config: str | Path | None = None
    """Where names of targets are looked up."""
    check: bool = True
    """Compare what is read with its checksum. Benchmarks alone go without, to price it."""

    def may_adapt(self, task: str) -> bool:
        """Whether a run of such a pack may answer with less than its plan."""
        return not self.strict and (task != "embedding" or not self.comparable)

    def validate(self) -> None:
        """Refuse what cannot be used.

        Raises:
            InputError: unusable threads, a storage without a profile of it, or a
                value of the wrong type.
        """
        check_threads(self.threads)
        if not isinstance(self.profile, DeviceProfile | None):
            raise InputError(f"profile must be a DeviceProfile; found {self.profile!r:.60}")
        if not callable(self.notify):
            raise InputError(f"notify must take a line of text; found {self.notify!r:.60}")
        if self.storage is not None and self.profile is None:
            raise InputError(
                "a custom storage needs a profile measured with it; make one with "
                "sti.device.emulated_storage.with_storage"
            )
