"""Measuring in a process of its own, for an engine whose memory is limited.

Measuring takes some 25 MB, which a budget of memory may not have. In: a pack's path, threads. Out:
what was measured, as ``sti.calibration.calibrate`` measures it in its own process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired

from sti.calibration.kept import StoragePart
from sti.device.profile import DeviceProfile
from sti.errors import ProfileError, RunError

_PATIENCE_S = 60.0
_MOST_TOLD = 400
"""Characters of what the other process said that an error repeats."""


def measure_apart(path: Path, threads: int) -> tuple[StoragePart, DeviceProfile]:
    """Measure every lane in another process.

    Raises:
        RunError: there can be no other process, or it failed; says what to do.
    """
    remedy = f"measure first, with `sti calibrate {path}`, or ask for more memory"
    job = json.dumps({"path": str(path.absolute()), "threads": threads})
    paths = os.pathsep.join(item for item in sys.path if item)
    try:
        child = Popen(
            [sys.executable, "-m", "sti.calibration.measuring_child"],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except OSError as error:
        raise RunError(
            f"{path}: this machine is not measured yet, and no process to do it can be started: "
            f"{error.strerror}; {remedy}"
        ) from error
    with child:
        try:
            out, said = child.communicate(job, timeout=_PATIENCE_S)
        except BaseException as error:
            child.kill()
            if isinstance(error, TimeoutExpired):
                raise RunError(
                    f"{path}: measuring this machine took over {_PATIENCE_S:.0f} s; {remedy}"
                ) from error
            raise
    if child.returncode:
        last = said.strip().rpartition("\n")[2][:_MOST_TOLD]
        raise RunError(f"{path}: measuring this machine failed: {last}; {remedy}")
    try:
        found, where = json.loads(out), "what was measured"
        return (
            StoragePart.from_json(found["storage"], where=where),
            DeviceProfile.from_json(found["profile"], where=where),
        )
    except (ValueError, KeyError, TypeError, ProfileError) as error:
        raise RunError(
            f"{path}: measuring this machine gave no profile: {error}; {remedy}"
        ) from error
