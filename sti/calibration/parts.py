"""The two parts of a device profile that are kept apart, and what each of them depends on.

In: an open pack, a number of threads, a cache. Out: what is kept for them, joined to a profile; and
what is to be kept of a new measurement. The storage lane is one for all packs on a device; all the
rest is one for all packs of a shape: layers, labels and weights are no part of it. Measures
nothing.
"""

from __future__ import annotations

import math
import os
import platform
import time
import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sti.backend.onnxruntime.release import ort_version
from sti.calibration.cache import Cache, Key
from sti.calibration.kept import Kept, StoragePart
from sti.codec.decoders import kernel_path
from sti.device import host
from sti.device.identity import instruction_set, machine_key
from sti.device.lanes import STORAGE
from sti.device.profile import MOST_DISTURBED, PROFILE_VERSION, DeviceProfile
from sti.errors import StiWarning
from sti.pack.pack_reader import PackReader

_COSTS_VERSION = 5
"""Part of the key of cached profiles: raised when a lane's code becomes faster or slower."""
_SAME_S = 0.01
_RETRY_S = 60.0
"""After a measurement that was no better than the one before, none is made unasked for so long."""


class FoundParts(NamedTuple):
    """What is kept of a profile."""

    profile_part: Kept[DeviceProfile] | None
    storage_part: Kept[StoragePart] | None

    @property
    def profile(self) -> DeviceProfile | None:
        """The profile, if both parts are there."""
        if self.profile_part is None or self.storage_part is None:
            return None
        return joined(self.profile_part.value, self.storage_part.value)

    @property
    def storage(self) -> StoragePart | None:
        """The storage lane, if it is there and was not disturbed."""
        part = self.storage_part
        return None if part is None or part.value.provisional else part.value

    @property
    def needs_profile(self) -> bool:
        """Whether all but the storage lane is missing or provisional."""
        return self.profile_part is None or self.profile_part.value.provisional

    @property
    def measured_at(self) -> float:
        """When the older part was measured, in seconds since the epoch; 0 where that is unknown."""
        return min(
            (0.0 if part is None else part.measured_at)
            for part in (self.profile_part, self.storage_part)
        )

    @property
    def age_s(self) -> float:
        """Seconds since the older part was measured; infinite where one is missing."""
        return max(
            (math.inf if part is None else part.age_s)
            for part in (self.profile_part, self.storage_part)
        )

    @property
    def may_try_again(self) -> bool:
        """Whether it is long enough ago that a new measurement was no better."""
        parts = [part for part in (self.profile_part, self.storage_part) if part is not None]
        failed = [part.tried_at for part in parts if part.tried_at > part.measured_at + _SAME_S]
        return not any(0.0 <= time.time() - tried < _RETRY_S for tried in failed)


class KeptParts:
    """The parts that are kept for one pack on one number of threads.

    Args:
        reader: the open pack.
        threads: compute threads.
        cache: where they are kept.
    """

    def __init__(self, reader: PackReader, threads: int, cache: Cache) -> None:
        self.threads, self.cache = threads, cache
        self._profile_key = {**shape_key(reader), "threads": threads}
        self._storage_key = {
            **_machine_key(),
            "storage": [os.major(reader.device), os.minor(reader.device)],
        }

    def load(self) -> FoundParts:
        """What is kept; parts of another machine are told, and left out."""
        profile = self.cache.load_profile(self._profile_key)
        if profile is not None and not self._is_mine(profile.value):
            _warn_foreign(profile)
            profile = None
        storage = self.cache.load_storage(self._storage_key)
        if storage is not None and not storage.value.device.startswith(host.cpu_name()):
            _warn_foreign(storage)
            storage = None
        return FoundParts(profile, storage)

    def keep(
        self, found: FoundParts, storage: StoragePart | None, profile: DeviceProfile | None
    ) -> DeviceProfile:
        """Store what was measured, unless what is kept was disturbed less; the profile to use.

        Args:
            found: what was kept before; has the parts that were not measured.
            storage, profile: what was measured.
        """
        old_storage, old_profile = found.storage_part, found.profile_part
        if storage is not None and _is_better(storage, old_storage):
            self.cache.store_storage(self._storage_key, storage)
        elif old_storage is not None:
            if storage is not None:
                self.cache.tried(old_storage.path)
            storage = old_storage.value
        if profile is not None and _is_better(profile, old_profile):
            self.cache.store_profile(self._profile_key, profile)
        elif old_profile is not None:
            if profile is not None:
                self.cache.tried(old_profile.path)
            profile = old_profile.value
        assert storage is not None, "what is missing is measured"
        assert profile is not None, "what is missing is measured"
        return joined(profile, storage)

    def _is_mine(self, profile: DeviceProfile) -> bool:
        return (
            profile.device.startswith(host.cpu_name())
            and profile.threads == self.threads
            and (profile.instructions, profile.kernel) == (instruction_set(), kernel_path())
        )


def joined(profile: DeviceProfile, storage: StoragePart) -> DeviceProfile:
    """A profile with the storage lane of a device."""
    return replace(
        profile.with_lanes({STORAGE: storage.lane}),
        disturbed=max(profile.disturbed, storage.disturbed),
    )


def shape_key(reader: PackReader) -> Key:
    """What measurements of decoding and computing depend on: machine, software, shapes, graphs."""
    manifest = reader.manifest
    shards = [(kind.name, kind.shard_weights, *kind.groups) for kind in manifest.kinds]
    return {
        **_machine_key(),
        "instructions": instruction_set(),
        "kernel": kernel_path(),
        "graphs": reader.graphs_digest,
        "model": [manifest.dimensions.hidden, manifest.dimensions.slices, *shards],
        "task": manifest.task,
        "ladder": manifest.ladder,
    }


def _machine_key() -> Key:
    """What all measurements depend on: machine and software."""
    return {
        "profile": PROFILE_VERSION,
        "lanes": _COSTS_VERSION,
        "machine": machine_key(),
        "speeds": [core.speed for core in host.cores()],
        "software": [platform.python_version(), np.__version__, ort_version()],
    }


def _is_better(
    new: DeviceProfile | StoragePart, kept: Kept[DeviceProfile] | Kept[StoragePart] | None
) -> bool:
    """Whether a new measurement takes the place of an old one."""
    return kept is None or new.disturbed <= MOST_DISTURBED or new.disturbed < kept.value.disturbed


def _warn_foreign(kept: Kept[DeviceProfile] | Kept[StoragePart]) -> None:
    warnings.warn(
        f"{kept.path}: was measured on another machine ({kept.value.device}), and is ignored",
        StiWarning,
        stacklevel=4,
    )
