"""Measurements as they are kept between runs: when they were made, and the part that packs share.

In: what was measured, or the JSON of a file. Out: frozen values. Knows nothing of where they are
kept. Only ages ask a clock.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from sti.device.lane_profiles import StorageProfile
from sti.device.profile import MOST_DISTURBED, PROFILE_VERSION
from sti.device.profile_json import read_storage
from sti.errors import ProfileError
from sti.json_fields import JsonFields

T = TypeVar("T")


class Kept(NamedTuple, Generic[T]):
    """What was measured, as it is kept."""

    path: Path
    value: T
    measured_at: float
    """Seconds since the epoch; 0 where the file does not say."""
    tried_at: float
    """When it was last tried to replace it, or else written."""

    @property
    def age_s(self) -> float:
        """Seconds since it was measured; infinite if that is not known, or in the future."""
        age_s = time.time() - self.measured_at
        return age_s if age_s >= 0.0 and self.measured_at else math.inf


@dataclass(frozen=True, slots=True)
class StoragePart:
    """The storage lane of all packs on one device."""

    lane: StorageProfile
    device: str
    """The machine, for people."""
    disturbed: float
    """Share of the time that reads waited for a core, 0 to 1."""

    @property
    def provisional(self) -> bool:
        """As of ``DeviceProfile``."""
        return self.disturbed > MOST_DISTURBED

    def to_json(self) -> dict[str, Any]:
        """A JSON object that ``from_json`` reads back to an equal part."""
        return {"profile": PROFILE_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: object, *, where: str) -> StoragePart:
        """Parse a part.

        Raises:
            ProfileError: an unknown version, or a field that makes no sense; names ``where``.
        """
        fields = JsonFields(value, where=where, error=ProfileError)
        fields.require_version("profile", PROFILE_VERSION, remedy="run `sti calibrate`")
        return cls(
            lane=read_storage(fields.object("lane")),
            device=fields.text("device"),
            disturbed=fields.number("disturbed", least=0.0, most=1.0),
        )
