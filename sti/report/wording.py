"""Words for what is measured and planned: counts, metrics, plans, the software.

In: numbers and plans. Out: phrases and lines for people. Knows nothing of where they are printed.
"""

from __future__ import annotations

from collections.abc import Callable

from sti.model.workload import Workload
from sti.planning.plan import Plan
from sti.units import format_size, format_time
from sti.version import __version__


def counted(number: int, noun: str) -> str:
    """A number and what it counts: ``1 layer``, ``2 layers``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def show_metric(
    metric: str, value: float, *, difference: bool = False, digits: int | None = None
) -> str:
    """A metric for people.

    An accuracy is in percent, a difference between two of them in points; other metrics have three
    digits behind the point.

    Args:
        digits: behind the point, where it is not as many as usual.
    """
    if metric != "accuracy":
        return f"{value:.{3 if digits is None else digits}f}"
    shown = f"{value * 100:.{1 if digits is None else digits}f}"
    return f"{shown} {'points' if difference else '%'}"


def signed(value: float, show: Callable[[float], str]) -> str:
    """A difference with its sign; 0 where ``show`` rounds it to that.

    Args:
        show: words for its size, which is not below zero.
    """
    text = show(abs(value))
    if not any(digit in text for digit in "123456789"):
        return "0"
    return f"{'+' if value > 0 else '-'}{text}"


def describe_plan(plan: Plan, *, of: Workload | None = None) -> str:
    """One line: submodel, target, predicted time, what limits, and the quality to expect.

    Args:
        of: what is run; where the prediction is for another workload, that is named.
    """
    parts = [counted(plan.depth, "layer"), counted(plan.width, "slice")]
    asked = []
    if plan.target.latency_s is not None:
        asked.append(f"latency {format_time(plan.target.latency_s)}")
    if plan.target.memory_bytes is not None:
        asked.append(f"memory {format_size(plan.target.memory_bytes)}")
    elif plan.target.preload_bytes:
        asked.append(f"preload {format_size(plan.target.preload_bytes)}")
    if asked:
        parts.append("asked for " + ", ".join(asked))
    if plan.predicted is not None:
        other = "" if of in (None, plan.workload) else f" for {plan.workload.words}"
        parts.append(f"predicted {format_time(plan.predicted.total_s)}{other}")
        parts.append(f"limited by {plan.predicted.limited_by}")
        if (quality := plan.predicted.quality) is not None:
            shown = show_metric(quality.metric, quality.value)
            parts.append(f"expected {quality.metric} {shown}")
    return ", ".join(parts)


def software() -> str:
    """The versions of what runs here, in one line."""
    import platform

    import numpy as np

    from sti.backend.onnxruntime.release import ort_version

    return (
        f"sti {__version__}, Python {platform.python_version()}, onnxruntime {ort_version()}, "
        f"numpy {np.__version__}"
    )
