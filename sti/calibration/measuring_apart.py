"""Measuring in a process of its own, for an engine whose memory is limited.

Measuring takes some 25 MB, which a budget of memory may not have. In: a pack's path, threads. Out:
what was measured, as ``sti.calibration.calibrate`` measures it in its own process.
"""

from __future__ import annotations

from pathlib import Path

from sti.calibration.kept import StoragePart
from sti.device.other_process import ask
from sti.device.profile import DeviceProfile
from sti.errors import ProfileError, RunError
from sti.notices import Notify

_PATIENCE_S = 60.0


def measure_apart(path: Path, threads: int, notify: Notify) -> tuple[StoragePart, DeviceProfile]:
    """Measure every lane in another process.

    Args:
        path: of the pack.
        threads: that compute.
        notify: told the notices of the process that measures.

    Raises:
        StiError: as ``measure_parts`` in that process.
        RunError: there can be no other process, or it failed otherwise; says what to do.
    """
    remedy = f"measure first, with `sti calibrate {path}`, or ask for more memory"
    found = ask(
        "sti.calibration.measuring_child",
        {"path": str(path.absolute()), "threads": threads},
        what=f"{path}: measuring this machine",
        remedy=remedy,
        patience_s=_PATIENCE_S,
        notify=notify,
    )
    try:
        where = "what was measured"
        return (
            StoragePart.from_json(found["storage"], where=where),
            DeviceProfile.from_json(found["profile"], where=where),
        )
    except (KeyError, TypeError, ProfileError) as error:
        raise RunError(
            f"{path}: measuring this machine gave no profile: {error}; {remedy}"
        ) from error
