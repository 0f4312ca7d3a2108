"""What was measured before, for ``sti doctor`` and ``sti calibrate``: state, age and machine.

In: the cache. Out: facts, and a table of them. Needs only NumPy.
"""

from __future__ import annotations

import math
from typing import Any

from sti.calibration.cache import Cache
from sti.calibration.kept import Kept, StoragePart
from sti.device.profile import DeviceProfile
from sti.report.tables import aligned

MEASURED, PROVISIONAL = "measured", "provisional"


def kept_facts(cache: Cache) -> list[dict[str, Any]]:
    """Every part that is kept: what all packs of a shape share, then what packs on a device do."""
    return [*map(_fact, cache.profiles()), *map(_fact, cache.storages())]


def _fact(kept: Kept[DeviceProfile] | Kept[StoragePart]) -> dict[str, Any]:
    threads = kept.value.threads if isinstance(kept.value, DeviceProfile) else None
    return {
        "file": kept.path.name,
        "part": "storage" if threads is None else "compute",
        "threads": threads,
        "state": PROVISIONAL if kept.value.provisional else MEASURED,
        "disturbed": kept.value.disturbed,
        "age_s": None if math.isinf(kept.age_s) else round(kept.age_s),
        "device": kept.value.device,
    }


def kept_table(facts: list[dict[str, Any]]) -> str:
    """The facts for people, a line each."""
    rows = [
        [
            fact["file"],
            fact["part"],
            "-" if fact["threads"] is None else str(fact["threads"]),
            fact["state"],
            share(fact["disturbed"]),
            _age(fact["age_s"]),
            fact["device"],
        ]
        for fact in facts
    ]
    return aligned(["file", "part", "threads", "state", "waited", "age", "device"], rows)


def share(part: float) -> str:
    """A share of time for people."""
    return f"{100 * part:.0f} %"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
