"""What every staircase of a pack would take on a machine, all of them at once.

Purpose: planning in under a millisecond. In: staircases, made arrays once for each engine
(``PriceList``); then a device profile, a workload and a preload. Out: seconds of each staircase
under each kind of threads the machine was measured with (``Prices``). The same numbers as
``sti.planning.prediction`` gives for each staircase's plan: costs come from
``cost_model.run_costs``, and the waits of ``cost_model.run_steps`` are worked out for all of them
together, position by position. Knows nothing of targets. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from sti.arrays import Float64Array, Int64Array
from sti.device.lanes import DECODE, STORAGE, LaneThreads
from sti.device.profile import DeviceProfile
from sti.model.fidelity import groups_in_use
from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.planning.cost_model import RunCosts, run_costs
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import EXACT, NARROW
from sti.planning.preload_placement import READ_AHEAD
from sti.planning.pricing_waits import Work
from sti.planning.staircase_loads import loads_of_all
from sti.planning.staircases import Staircases
from sti.planning.variants import variants_of


class Prices(NamedTuple):
    """Seconds of every staircase ``c`` under every kind of threads ``k``."""

    threads: tuple[LaneThreads, ...]
    """The kinds, in the order of ``k``."""
    total_s: Float64Array
    """``[k, c]``: median seconds from text to answer."""
    loss: Float64Array
    """``[c]``: expected loss, with the narrow products that the machine prefers."""
    read_bytes: Int64Array
    """``[c]``: bytes of slice groups, preloaded ones included."""
    quality: Quality | None
    """The pack's; None where it was not measured."""


class PriceList:
    """What the staircases of a pack ask of any machine. Not modified; safe to share.

    Args:
        manifest: of the pack.
        staircases: of the same pack.
        read_ahead: groups that may be read beyond the one being decoded.
    """

    def __init__(
        self, manifest: Manifest, staircases: Staircases, *, read_ahead: int = READ_AHEAD
    ) -> None:
        self.staircases = staircases
        self._manifest = manifest
        self._slots = read_ahead + 1
        self._loads = loads_of_all(manifest, staircases)
        ways: dict[tuple[int, ...], int] = {}
        self._in_use: list[tuple[int, tuple[int, ...]]] = []
        """A width, and the groups in use of each kind of block, for each different number."""
        rows = []
        for submodel in manifest.submodels:
            way = tuple(groups_in_use(kind.groups, submodel.width) for kind in manifest.kinds)
            if way not in ways:
                ways[way] = len(ways)
                self._in_use.append((submodel.width, way))
            rows.append(ways[way])
        self._row = np.array(rows)[staircases.submodel]

    def price(
        self,
        profile: DeviceProfile,
        workload: Workload,
        preload_bytes: int,
        threads: Collection[str] = (),
    ) -> Prices:
        """Price all staircases.

        Args:
            threads: as ``Target.threads``.

        Raises:
            ProfileError: the profile lacks a graph or a fidelity of the pack.
        """
        return self.price_all(profile, [workload], preload_bytes, threads)[0]

    def price_all(
        self,
        profile: DeviceProfile,
        workloads: Sequence[Workload],
        preload_bytes: int,
        threads: Collection[str] = (),
    ) -> list[Prices]:
        """Price all staircases for each workload, in less time than one after the other.

        Raises:
            ProfileError: as ``price``.
        """
        loads, kinds = self._loads, measured_choices(profile, threads)
        narrow = NARROW in variants_of(self._manifest, profile)
        read_bytes, requests = loads.left(preload_bytes)
        storage, decode = profile.storage, profile.decode
        alone_s = requests * storage.request_s + read_bytes * (1.0 / storage.bytes_per_s)
        taken = (read_bytes > 0.0).astype(np.float64) if preload_bytes else None
        total_s = np.empty((len(workloads), len(kinds), len(loads.read_bytes)))
        for row, kind in enumerate(kinds):
            each = [self._costs(profile, workload, kind) for workload in workloads]
            costs, which = [found for found, _ in each], each[0][1]
            if not row:  # after the costs, which say what a profile lacks
                steps = [decode.weight_s[bits] for bits in self._manifest.ladder]
                plane_s = np.array([decode.shard_s, steps[0], *np.diff(steps)])
                decoded_s = (plane_s @ loads.work.reshape(len(plane_s), -1)).reshape(alone_s.shape)
            contention = profile.run(kind).contention
            compute_s, shares = self._compute(costs, which, narrow=narrow)
            own_s = contention[DECODE] * decoded_s
            if shares is not None:
                used = np.maximum(loads.used, 1.0)
                own_s *= np.ceil(used / shares) / used
            connect_s = np.array([[item.connect_s for item in found] for found in costs])
            work = Work(
                costs=[found[0] for found in costs],
                read_s=contention[STORAGE] * alone_s,
                decode_s=own_s,
                compute_s=compute_s,
                connect_s=connect_s if which is None else connect_s[:, which],
                shares=shares,
                loads=loads,
                taken=taken,
            )
            total_s[:, row] = work.total_s(kind, self._slots)
        found = self.staircases
        return [
            Prices(
                threads=kinds,
                total_s=total_s[place],
                loss=found.narrow_loss if narrow else found.loss,
                read_bytes=loads.read_bytes,
                quality=self._manifest.quality,
            )
            for place in range(len(workloads))
        ]

    def _compute(
        self, costs: Sequence[Sequence[RunCosts]], which: Int64Array | None, *, narrow: bool
    ) -> tuple[Float64Array, Int64Array | None]:
        """Seconds of each share of each position, ``[n, w, c]``, and ``Work.shares``.

        Args:
            costs: of each workload, in the order of ``which``.
        """
        loads, kinds = self._loads, self._manifest.kinds
        code = loads.kind if which is None else loads.kind + which * len(kinds)
        compute_s = np.empty((len(loads.used), len(costs), loads.used.shape[1]))
        for place, found in enumerate(costs):
            seconds = self._seconds(found, code, EXACT)
            if narrow:
                np.copyto(seconds, self._seconds(found, code, NARROW), where=loads.narrow)
            compute_s[:, place] = seconds
        counts = np.array([item.share_counts[kind.name] for item in costs[0] for kind in kinds])
        return compute_s, None if counts.max() == 1 else counts[code]

    def _seconds(self, costs: Sequence[RunCosts], code: Int64Array, variant: str) -> Float64Array:
        """Seconds of each share of each position for one workload, ``[n, c]``."""
        loads, kinds = self._loads, self._manifest.kinds
        each = [item.graph_s[kind.name] for item in costs for kind in kinds]
        call_s, slice_s = np.array([by.get(variant, by[EXACT]) for by in each]).T
        found: Float64Array = loads.used * slice_s[code]
        found += loads.filled * call_s[code]
        if min(call_s.min(), slice_s.min()) < 0.0:
            np.maximum(found, 0.0, out=found)
        return found

    def _costs(
        self, profile: DeviceProfile, workload: Workload, threads: LaneThreads
    ) -> tuple[list[RunCosts], Int64Array | None]:
        """Costs for each way in which widths share steps, and which one each staircase has.

        Of a width only the number of groups in use matters: graphs beside the blocks (``embed``,
        ``connect``, ``head``) take as long at any width.
        """
        found: dict[tuple[int, ...], int] = {}
        costs: list[RunCosts] = []
        which = []
        for width, in_use in self._in_use:
            way = tuple(max(1, threads.compute // count) for count in in_use)
            if way not in found:
                found[way] = len(costs)
                costs.append(run_costs(self._manifest, profile, workload, width, threads=threads))
            which.append(found[way])
        return costs, None if len(costs) == 1 else np.array(which)[self._row]
