"""The machine as one engine knows it: the source of its profile, and its speeds once that is known.

In: a pack, its back end, options. Out: the device profile, given or measured when it is first asked
for, and ``Speeds``, which corrects it. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sti.backend.interface import Backend
from sti.calibration.cache import Cache
from sti.calibration.calibrate import MeasureApart, load_or_measure, measure_again
from sti.device.profile import DeviceProfile
from sti.engine.options import EngineOptions
from sti.engine.speeds import Basis, Speeds
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.corrections import ENGINE, WORKLOAD
from sti.planning.plan import Plan


class Machine:
    """The machine of one engine. Not to be asked while ``backend`` computes."""

    def __init__(
        self, reader: PackReader, backend: Backend, options: EngineOptions, *, threads: int
    ) -> None:
        self._reader, self._backend, self.notify = reader, backend, options.notify
        self._given = options.profile
        self.variants = backend.variants
        """How products may be computed where no profile says it."""
        self.threads = threads
        """Compute threads in use; the profile is one for this many."""
        self._speeds: Speeds | None = None
        self._doubted = False
        """Whether it was measured again already."""
        self.learns = options.adapt
        """Whether runs correct the profile."""
        self.is_measured_apart = False
        """Whether measuring may not take memory of this process."""
        self._ran: set[Workload] = set()

    @property
    def profile(self) -> DeviceProfile | None:
        """The profile as measured, if it is known already."""
        return self._given if self._speeds is None else self._speeds.profile

    @property
    def known(self) -> Speeds | None:
        """The speeds, if a profile was given, or needed so far."""
        return self._speeds if self._given is None else self.speeds

    @property
    def speeds(self) -> Speeds:
        """The speeds; the profile is loaded or measured if need be."""
        if self._speeds is None:
            profile = self._given or load_or_measure(
                self._reader,
                self._backend,
                threads=self.threads,
                apart=self._apart(),
                notify=self.notify,
            )
            self._speeds = self._speeds_of(profile)
        return self._speeds

    @property
    def is_measured(self) -> bool:
        """Whether the profile was measured here, rather than given."""
        return self._given is None

    def measure_again(self) -> bool:
        """Measure anew before a target is refused; whether that gave another profile.

        Once for each engine; what was given is not measured, nor what was measured well just now.
        """
        if self._given is not None or self._doubted:
            return False
        self._doubted = True
        before = self.speeds.profile
        profile = measure_again(
            self._reader,
            self._backend,
            threads=self.threads,
            apart=self._apart(),
            notify=self.notify,
        )
        if profile == before:
            return False
        self._speeds = self._speeds_of(profile)
        return True

    @contextmanager
    def as_known(self) -> Iterator[None]:
        """Within it, nothing is measured again."""
        before, self._doubted = self._doubted, True
        try:
            yield
        finally:
            self._doubted = before

    def _apart(self) -> MeasureApart | None:
        if not self.is_measured_apart:
            return None
        from sti.calibration.measuring_apart import measure_apart  # most targets limit no memory

        return measure_apart

    def _speeds_of(self, profile: DeviceProfile) -> Speeds:
        # A profile that was given may be of another machine, or of other storage.
        cache = Cache() if self.learns and self._given is None else None
        return Speeds(profile, self._reader.pack_id, cache, learns=self.learns)

    def save(self) -> None:
        """Keep what was learned for later processes."""
        if self._speeds is not None:
            self._speeds.save()

    def first(self, workload: Workload) -> str | None:
        """Which of the first runs one of this workload would be; None where it is none."""
        if not self._ran:
            return ENGINE
        return None if workload in self._ran else WORKLOAD

    def note_run(self, workload: Workload) -> None:
        """Take note that something of a workload was run."""
        self._ran.add(workload)

    def forget_runs(self) -> None:
        """The next run is the first one again."""
        self._ran.clear()

    def first_s(self, workload: Workload) -> float:
        """Seconds that a run of it takes more because it is the first; 0 where it is not."""
        first = self.first(workload)
        return 0.0 if first is None else self.speeds.corrections.first_s(first)

    def basis(
        self,
        plan: Plan,
        workload: Workload,
        lanes: Mapping[str, float],
        lanes_s: Mapping[str, float],
        *,
        running: bool,
    ) -> Basis:
        """What a prediction is made with.

        Args:
            plan: predicted by its lanes alone.
            workload: of the run.
            lanes, lanes_s: as of ``Basis``.
            running: of a run now, which may be a first one.
        """
        assert plan.predicted is not None, "predictions of lanes are what is corrected"
        price_s, extra = plan.predicted.total_s, self.speeds.extra(plan.threads.name, workload)
        if not running:
            return Basis(lanes, lanes_s, price_s, extra, None, 0.0)
        first, first_s = self.first(workload), self.first_s(workload)
        return Basis(lanes, lanes_s, price_s, extra, first, first_s)
