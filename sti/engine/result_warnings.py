"""What a caller is warned of beside a result, in words.

In: results. Out: lines of text. Knows nothing of who warns, and where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sti.engine.results import Result
from sti.model.quality import Estimate
from sti.planning.downgrade import DAMAGED, LATE, Downgrade
from sti.report.wording import show_metric


def warnings_of(result: Result, *, path: Path, max_tokens: int) -> Iterator[tuple[str, str]]:
    """What to warn of: for each warning what it is about, by which it can be told once, and a line.

    Args:
        path: of the pack.
        max_tokens: of the model.
    """
    yield from ((notice, notice) for notice in result.notices)
    damaged = result.left_out(DAMAGED)
    if damaged:
        notice = describe_downgrades(damaged, result.quality)
        yield notice, f"{path}: {notice}"
    if result.truncated:
        yield (
            "truncated",
            f"{result.truncated} of {len(result.texts)} texts were cut to {max_tokens} tokens, "
            "the most this model takes",
        )


def describe_downgrades(downgrades: Sequence[Downgrade], quality: Estimate | None) -> str:
    """One line on the damage that was left out of a run, and what to do."""
    first, *others = downgrades
    text = (
        f"damaged: layer {first.layer} {first.kind}, group {first.group}, slice {first.slice}, "
        f"plane of {first.bits} bits"
    )
    text += f", and {len(others)} more; " if others else "; "
    text += "answered at the fidelity below"
    if quality is not None:
        text += f", expected {quality.metric} {show_metric(quality.metric, quality.value)}"
    return f"{text}; fetch the pack again (`sti-shard verify` lists all damage)"


def describe_late(late: int, steps: int, quality: Estimate | None) -> str:
    """A phrase on planes that were left out because they would have come too late.

    Args:
        late: steps that lack some.
        steps: that were run.
        quality: to expect.
    """
    text = f"left out to be in time: planes of {late} of {steps} steps"
    if quality is not None:
        text += f", expected {quality.metric} {show_metric(quality.metric, quality.value)}"
    return text


def late_steps(result: Result) -> int:
    """How many steps of all batches lack planes that would have come too late."""
    return sum(len({item.step for item in part.left_out(LATE)}) for part in result.parts)
