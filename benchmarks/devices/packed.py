"""A pack of the benchmark, with the profile of each kind of device that runs it.

In: a path. Out: texts, and files of profiles. A device is measured as devices are, on itself: what
it takes for runs of two lengths, over what this machine's profile says that a device so many times
slower takes, is part of its profile (caches that cool down while it sleeps). Knows nothing of
networks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from benchmarks.devices.kinds import Kind, emulated_kind, engine_options, loaded
from sti.calibration.sample_texts import SampleTexts
from sti.device.lanes import COMPUTE, DECODE, by_work
from sti.device.profile import DeviceProfile
from sti.engine.engine import Engine
from sti.engine.targets import TargetSpec
from sti.pack.pack_reader import PackReader

BITS = 4
"""Fidelity of all that is run."""
_TOKENS, _RUNS = (64, 256), 5


@dataclass
class Packed:
    """A pack, and profiles of devices with one compute thread."""

    path: Path
    folder: Path
    """Receives the files of profiles."""
    machine: DeviceProfile
    """Of this machine."""
    cold: dict[Kind, Mapping[str, float]] = field(default_factory=dict)
    """By kind of device that was measured and lane, what it takes over what was to be expected."""
    _found: dict[Kind, Path] = field(default_factory=dict)

    @classmethod
    def measured(cls, path: Path, folder: Path) -> Packed:
        """A pack, with this machine's profile, measured now where it is not known."""
        with Engine.open(path, fidelity=BITS, threads=1, history=False) as engine:
            return cls(path.resolve(), folder, engine.profile)

    @property
    def name(self) -> str:
        """For tables."""
        return self.path.name.partition(".")[0]

    @cached_property
    def layers(self) -> int:
        """Of the model."""
        with PackReader.open(self.path) as reader:
            return reader.manifest.dimensions.layers

    @cached_property
    def most_tokens(self) -> int:
        """Of a text."""
        with PackReader.open(self.path) as reader:
            return reader.manifest.dimensions.max_tokens

    def texts(self, count: int, tokens: int) -> list[str]:
        """Texts of so many tokens."""
        with PackReader.open(self.path) as reader:
            return SampleTexts(reader).texts(count, tokens)

    def profile_of(self, kind: Kind) -> Path:
        """The file with the profile of a device, which is measured when it is first asked for."""
        if kind not in self._found:
            profile = emulated_kind(self.machine, kind)
            if kind.times > 1.0:
                cold = self.cold[kind] = self._cold(kind, profile)
                profile = profile.slowed(cold)
            place = self.folder / f"{self.path.name}.{len(self._found)}.json"
            place.write_text(json.dumps(profile.to_json()), encoding="utf-8")
            assert loaded(place) == profile, "profiles are read as they were written"
            self._found[kind] = place
        return self._found[kind]

    def _cold(self, kind: Kind, profile: DeviceProfile) -> Mapping[str, float]:
        """By lane, what it takes on the device over what its profile says."""
        options = engine_options(self.path, profile, kind, None, lambda _: None)
        target, took, expected = TargetSpec(fidelity=BITS), [], []
        options = options._replace(adapt=False)
        with Engine(PackReader.open(self.path), target, options) as engine:
            for tokens in sorted({min(tokens, self.most_tokens) for tokens in _TOKENS}):
                texts = self.texts(1, tokens)
                engine.run(texts)  # which makes memory for its shapes
                for _ in range(_RUNS):
                    result = engine.run(texts)
                    assert result.plan.predicted is not None, "there is a profile"
                    took.append(by_work(result.trace.busy_s))
                    expected.append(by_work(result.plan.predicted.busy_s))
        return {
            lane: max(1.0, sum(item[lane] for item in took) / sum(item[lane] for item in expected))
            for lane in (DECODE, COMPUTE)
        }
