"""What a caller is told of a target that cannot be met, or only below the quality floor.

In: what was asked, the target, the prices of what the pack has. Out: errors and warnings that say
what would do. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sti.errors import InfeasibleError
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.planning.plan import Target
from sti.report.wording import show_metric
from sti.units import exact_share, format_size, format_time, rounded_up

_STEPS = 12
"""Halvings by which the least preload is found: to a few thousandths of the pack."""


def too_slow(
    asked: Workload,
    target: Target,
    needed_s: float,
    *,
    path: Path,
    preload_bytes: int | None,
    measured: bool,
) -> InfeasibleError:
    """That nothing is in time.

    Args:
        needed_s: the least latency that can be kept.
        preload_bytes: a preload that is enough, if there is one.
        measured: whether the machine was measured here, rather than given as a profile.
    """
    assert target.latency_s is not None, "without a latency everything is in time"
    remedy = f"raise the latency to {format_time(rounded_up(needed_s))}"
    if preload_bytes is not None:
        remedy += f", or the preload to {format_size(round(rounded_up(preload_bytes)))}"
    if measured:
        remedy += f"; if other programs kept the machine busy, `sti calibrate {path}` measures anew"
    return InfeasibleError(
        f"a latency of {format_time(target.latency_s)} cannot be met with {asked.words}: the "
        f"fastest plan takes up to {format_time(needed_s)} in {exact_share(target.quantile)} of "
        f"the runs; {remedy}",
        limit="latency",
        asked=target.latency_s,
        needed=needed_s,
    )


def below_floor(
    asked: Workload, target: Target, quality: Quality, loss: float, needed_s: float
) -> str:
    """That a latency leaves time only for less than the floor, and which one does not."""
    assert target.latency_s is not None, "without a latency nothing is left out"
    kept_s = rounded_up(needed_s)
    return (
        f"a latency of {format_time(target.latency_s)} with {asked.words} leaves an expected "
        f"{_against_floor(target, quality, loss)}; {format_time(kept_s)} would keep it"
    )


def refused_below_floor(
    asked: Workload, target: Target, quality: Quality, loss: float, needed_s: float
) -> InfeasibleError:
    """The same where the floor is a limit."""
    return InfeasibleError(
        f"{below_floor(asked, target, quality, loss, needed_s)}; raise the latency, or lower the "
        "floor",
        limit="quality",
        asked=floor_value(target, quality),
        needed=quality.estimate(loss).value,
    )


def floor_value(target: Target, quality: Quality) -> float:
    """The least metric that the target's floor allows."""
    return target.floor * quality.estimate(0.0).value


def least_preload(most_bytes: int, held_bytes: int, in_time: Callable[[int], bool]) -> int | None:
    """The least preload that is in time, nearly; None where not even ``most_bytes`` is."""
    low, high = held_bytes, most_bytes
    if high <= low or not in_time(high):
        return None
    for _ in range(_STEPS):
        middle = (low + high) // 2
        low, high = (low, middle) if in_time(middle) else (middle, high)
    return high


def _against_floor(target: Target, quality: Quality, loss: float) -> str:
    name = quality.metric
    value, floor = quality.estimate(loss).value, floor_value(target, quality)
    return (
        f"{name} of {show_metric(name, value)}, below the floor of {show_metric(name, floor)} "
        f"({exact_share(target.floor)} of the full model's)"
    )
