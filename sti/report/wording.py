"""What the subcommands share: writing files, words for a plan, sizes of a workload.

In: plans, texts to write. Out: one-line descriptions; files that are whole or not there.
"""

from __future__ import annotations

import sys
import warnings

from sti.errors import StiWarning
from sti.model.manifest import Manifest
from sti.planning.plan import Plan
from sti.units import format_size, format_time

DEFAULT_TOKENS = 32


def workload_tokens(asked: int | None, manifest: Manifest) -> int:
    """Tokens a text to plan and measure with; a notice where the model takes fewer than asked."""
    most = manifest.dimensions.max_tokens
    if asked is not None and asked > most:
        warnings.warn(
            f"--tokens {asked} was cut to {most} tokens, the most this model takes",
            StiWarning,
            stacklevel=2,
        )
    return min(asked or DEFAULT_TOKENS, most)


def how_to_install(package: str) -> str:
    """The command that installs a package of the run time on this system."""
    if "com.termux" in sys.prefix:
        return f"pkg install python-{package}"
    return f"pip install {package}"


def show_metric(metric: str, value: float, *, difference: bool = False) -> str:
    """A metric for people: an accuracy in percent, a difference of two in points; others as are."""
    if metric != "accuracy":
        return f"{value:.3f}"
    return f"{value * 100:.1f} {'points' if difference else '%'}"


def describe_plan(plan: Plan) -> str:
    """One line: submodel, bits, target, what limits, and how good it is expected to be."""
    parts = [f"{plan.depth} layers x {plan.width} slices"]
    asked = []
    if plan.target.latency_s is not None:
        asked.append(f"latency {format_time(plan.target.latency_s)}")
    if plan.target.preload_bytes:
        asked.append(f"preload {format_size(plan.target.preload_bytes)}")
    if asked:
        parts.append("asked for " + ", ".join(asked))
    if plan.predicted is not None:
        parts.append(f"predicted {format_time(plan.predicted.total_s)}")
        parts.append(f"limited by {plan.predicted.limited_by}")
        if (quality := plan.predicted.quality) is not None:
            shown = show_metric(quality.metric, quality.value)
            parts.append(f"expected {quality.metric} {shown}")
    return ", ".join(parts)
