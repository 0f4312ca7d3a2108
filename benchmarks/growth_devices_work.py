"""What a batch costs several devices: multiply-adds, seconds of each resource, and what limits it.

In: a manifest, a plan, the profile of devices that are all of one kind, how they are joined, which
layers each has. Out: operations; seconds that storage, decoders, processors and links work, all
devices together; the same on the path to the last answer, by prediction. Pure. Knows nothing of how
the batch was measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from benchmarks.devices.home import Joined
from sti.device.lanes import LANES, LINK
from sti.device.profile import DeviceProfile
from sti.model.manifest import Manifest
from sti.model.workload import Workload, bucket
from sti.planning.cost_model import FIRST_STEPS
from sti.planning.lane_threads import measured_choices
from sti.planning.links import FLOAT32, Link, hidden_bytes, text_bytes
from sti.planning.plan import LOCAL, Plan
from sti.planning.prediction import Run
from sti.planning.stage_times import Member, StageTimes
from sti.planning.stages import Stage, layers_of

RESOURCES = (*LANES, LINK)
_EMBEDDED = FIRST_STEPS - 1
"""The step of a run that embeds; of a stage that is not the first, it waits for hidden states."""


class Load(NamedTuple):
    """Seconds of each of ``RESOURCES``."""

    total_s: Mapping[str, float]
    """Of all devices together, as if one of them, or one link, did all of it."""
    path_s: Mapping[str, float]
    """On the chain of waits that ends with the last answer."""
    devices: int
    links: int
    """That may carry something at once."""

    @property
    def roof_s(self) -> float:
        """The least that the work can take, were every resource busy on every device all the time:
        the longest of the resources, each with the sum of the rates of all devices.
        """
        counts = {**dict.fromkeys(LANES, self.devices), LINK: self.links}
        return max(self.total_s[name] / counts[name] for name in RESOURCES)

    @property
    def limiting(self) -> str:
        """The resource with the largest part of the path."""
        return max(RESOURCES, key=lambda name: self.path_s[name])


class Fleet(NamedTuple):
    """Devices of one kind."""

    profile: DeviceProfile
    devices: int
    joined: Joined
    """How; of one device it does not matter."""

    @property
    def link(self) -> Link:
        """Between any two of them; one medium is crossed twice."""
        crossed = 2 if self.joined.shared else 1
        rate = self.joined.mbit * 1e6 / 8 / crossed
        return Link(self.joined.delay_s, rate)


def operations(manifest: Manifest, plan: Plan, texts: int, tokens: int) -> int:
    """Multiply-adds of a plan's blocks for texts of so many tokens each: those of weights, and
    those of tokens with tokens in attention. Not counted: embeddings, norms, the head.
    """
    dimensions = manifest.dimensions
    groups = [manifest.group(step.layer, step.kind, step.group) for step in plan.steps]
    weights = sum(group.shard_weights * group.used(plan.width) for group in groups)
    among = 2 * tokens * dimensions.hidden * plan.width // dimensions.slices
    return texts * tokens * (weights + len(layers_of(plan)) * among)


def load_of(
    manifest: Manifest,
    plan: Plan,
    fleet: Fleet,
    stages: Sequence[Stage],
    *,
    units: int,
    workload: Workload,
    sent_bytes: int,
) -> Load:
    """What a batch takes on a chain.

    Args:
        plan: of the whole model.
        stages: which layers each device has.
        units: parts that the batch is divided into.
        workload: texts, and tokens of each.
        sent_bytes: all that is sent for the batch.
    """
    batch = -(-workload.batch // units)
    unit = bucket(batch, workload.tokens, most=manifest.dimensions.max_tokens)
    chain = _Chain(manifest, plan, fleet, stages, unit)
    total = Counter({name: seconds * units for name, seconds in chain.work_s().items()})
    total[LINK] = sent_bytes / fleet.link.bytes_per_s
    path = chain.path_s()
    for name, seconds in chain.busiest_s().items():
        path[name] += seconds * (units - 1)
    links = 1 if fleet.joined.shared else fleet.devices
    return Load(total, path, fleet.devices, links)


class _Chain:
    """The simulated run of one unit, stage by stage, each when its hidden states are there."""

    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        fleet: Fleet,
        stages: Sequence[Stage],
        unit: Workload,
    ) -> None:
        kinds = [kind for kind in reversed(measured_choices(fleet.profile)) if kind.storage]
        tokens, link = unit.batch * unit.tokens, fleet.link
        self._heard_s = [
            0.0 if stage.device == LOCAL else link.send_s(text_bytes(tokens)) for stage in stages
        ]
        hidden = hidden_bytes(tokens, manifest.dimensions.hidden, FLOAT32)
        self._sends_s = [link.send_s(hidden) for _ in pairwise(stages)]
        self._runs: list[Run] = []
        self._at_once: list[Run] = []
        end_s = 0.0
        for place, stage in enumerate(stages):
            member = Member(stage.device, fleet.profile, kinds[0], others=tuple(kinds[1:]))
            times = StageTimes(manifest, plan, member, unit, keeps=stage.device == LOCAL)
            part = times.part(stage)
            assert part is not None, "devices of this benchmark have room for all"
            arrival_s = end_s + self._sends_s[place - 1] if place else self._heard_s[0]
            waits_s = max(0.0, arrival_s - self._heard_s[place])
            self._runs.append(times.run(stage, part, waits_s))
            self._at_once.append(times.run(stage, part, 0.0))
            end_s = self._heard_s[place] + self._runs[-1].total_s

    def work_s(self) -> Counter[str]:
        """Seconds of each lane, on all devices."""
        found: Counter[str] = Counter()
        for place, run in enumerate(self._runs):
            steps = [step for step in range(len(run.steps)) if _is_work(place, step)]
            found.update(run.busy_s(steps))
        return found

    def path_s(self) -> Counter[str]:
        """Seconds of each resource on the path to the answer."""
        found: Counter[str] = Counter()
        for place in reversed(range(len(self._runs))):
            path = _path(self._runs[place])
            found.update(self._runs[place].busy_s(step for step in path if _is_work(place, step)))
            waits = place > 0 and _EMBEDDED in path
            found[LINK] += self._sends_s[place - 1] if waits else self._heard_s[place]
            if not waits:
                break
        return found

    def busiest_s(self) -> Counter[str]:
        """Seconds of each resource that every unit more takes: those of the busiest device or
        link.
        """
        longest = max(range(len(self._at_once)), key=lambda place: self._at_once[place].total_s)
        run, send_s = self._at_once[longest], max(self._sends_s, default=0.0)
        if send_s > run.total_s:
            return Counter({LINK: send_s})
        return Counter(run.busy_s(step for step in _path(run) if _is_work(longest, step)))


def _path(run: Run) -> tuple[int, ...]:
    return run.schedule.path(len(run.steps) - 1)


def _is_work(place: int, step: int) -> bool:
    """Whether a step of a stage is work of its device."""
    return place == 0 or step != _EMBEDDED
