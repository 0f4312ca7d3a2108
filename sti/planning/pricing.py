"""What every staircase of a pack would take on a machine, all of them at once.

Purpose: planning in under a millisecond. In: staircases, made arrays once for each engine
(``PriceList``); then a device profile, a workload and a preload. Out: seconds of each staircase
under each kind of threads the machine was measured with, and of each lane (``Prices``). The same
numbers as ``sti.planning.prediction`` gives for each staircase's plan: costs come from
``cost_model.run_costs``, and the waits of ``cost_model.run_steps`` are worked out for all columns
together, position by position. Knows nothing of targets. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from sti.arrays import Float64Array, Int64Array
from sti.device.lanes import COMPUTE, DECODE, STORAGE, LaneThreads
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
    busy_s: Mapping[str, Float64Array]
    """Lane to ``[k, c]``: seconds of its work, on all threads that do it."""
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

    def price(self, profile: DeviceProfile, workload: Workload, preload_bytes: int) -> Prices:
        """Price all staircases.

        Raises:
            ProfileError: the profile lacks a graph or a fidelity of the pack.
        """
        loads, kinds = self._loads, measured_choices(profile)
        narrow = NARROW in variants_of(self._manifest, profile)
        read_bytes, requests = loads.left(preload_bytes)
        storage, decode = profile.storage, profile.decode
        alone_s = requests * storage.request_s + read_bytes * (1.0 / storage.bytes_per_s)
        taken = (read_bytes > 0.0).astype(np.float64) if preload_bytes else None
        total_s = np.empty((len(kinds), len(loads.read_bytes)))
        busy_s = {lane: np.empty_like(total_s) for lane in (STORAGE, DECODE, COMPUTE)}
        for row, threads in enumerate(kinds):
            costs, which = self._costs(profile, workload, threads)
            if not row:  # after the costs, which say what a profile lacks
                steps = [decode.weight_s[bits] for bits in self._manifest.ladder]
                each = np.array([decode.shard_s, steps[0], *np.diff(steps)])
                decoded_s = (each @ loads.work.reshape(len(each), -1)).reshape(alone_s.shape)
            contention = profile.run(threads).contention
            compute_s, shares = self._compute(costs, which, narrow=narrow)
            own_s = contention[DECODE] * decoded_s
            if shares is not None:
                used = np.maximum(loads.used, 1.0)
                own_s *= np.ceil(used / shares) / used
            connect_s = np.array([item.connect_s for item in costs])
            work = Work(
                costs=costs[0],
                read_s=contention[STORAGE] * alone_s,
                decode_s=own_s,
                compute_s=compute_s,
                connect_s=connect_s[0] if which is None else connect_s[which],
                shares=shares,
                loads=loads,
                taken=taken,
            )
            busy = work.busy_s()
            for lane, seconds in busy.items():
                busy_s[lane][row] = seconds
            total_s[row] = work.total_s(threads, self._slots, busy)
        found = self.staircases
        return Prices(
            threads=kinds,
            total_s=total_s,
            busy_s=busy_s,
            loss=found.narrow_loss if narrow else found.loss,
            read_bytes=loads.read_bytes,
            quality=self._manifest.quality,
        )

    def _compute(
        self, costs: Sequence[RunCosts], which: Int64Array | None, *, narrow: bool
    ) -> tuple[Float64Array, Int64Array | None]:
        """Seconds of each share of each position, ``[n, c]``, and ``Work.shares``."""
        loads, kinds = self._loads, self._manifest.kinds
        code = loads.kind if which is None else loads.kind + which * len(kinds)
        seconds = []
        for variant in (EXACT, NARROW) if narrow else (EXACT,):
            each = [item.graph_s[kind.name] for item in costs for kind in kinds]
            call_s, slice_s = np.array([by.get(variant, by[EXACT]) for by in each]).T
            found = loads.used * slice_s[code]
            found += loads.filled * call_s[code]
            if min(call_s.min(), slice_s.min()) < 0.0:
                np.maximum(found, 0.0, out=found)
            seconds.append(found)
        if narrow:
            np.copyto(seconds[0], seconds[1], where=loads.narrow)
        counts = np.array([item.share_counts[kind.name] for item in costs for kind in kinds])
        return seconds[0], None if counts.max() == 1 else counts[code]

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
