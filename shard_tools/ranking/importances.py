"""The measured importance of every shard's planes, and how reliable it is.

In: a bench, the gains the pack carries, how much to measure. Out: gains for the manifest, and notes
that say how stable the ranking is and how well the cheap proxies do. Shards are lowered one by one,
to one fidelity after the other from the lowest on, until the pack's gains rank what is left as the
measurement does (``auto``), or not at all (``proxy``: whole blocks only). Knows nothing of
submodels or plans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shard_tools.measuring.forward import Precision
from shard_tools.measuring.judge import ANSWER, LOSS
from shard_tools.measuring.metrics import spearman
from shard_tools.packing.encoding import Gains
from shard_tools.ranking.gains import (
    AGREEMENT,
    agreement,
    by_block,
    gains_of,
    rest_agreement,
    scaled_to_blocks,
    steps_of,
    with_rest,
)
from shard_tools.ranking.shard_losses import (
    ABSENT,
    Bench,
    mean_losses,
    names,
    rounding_losses,
    shard_losses,
)
from shard_tools.ranking.stability import stability
from sti.arrays import Float32Array, Float64Array
from sti.model.manifest import Manifest

_FEW = 10
"""A ranking by one text in so many is compared with that by all, as a cheaper way."""


@dataclass(frozen=True, slots=True)
class Importances:
    """Gains, and what is to be said about them."""

    gains: Gains
    notes: dict[str, Any]


def planned_steps(
    base: Precision, ladder: Sequence[int], measure: str
) -> Iterator[tuple[str, float]]:
    """The most steps that ``measure_importances`` takes, with their work."""
    yield from names(base, (ABSENT, *ladder[:-1]), whole=measure == "proxy")


def measure_importances(
    bench: Bench, manifest: Manifest, stored: Float64Array, measure: str, *, seed: int
) -> Importances:
    """Measure the gains of all planes.

    Args:
        stored: the gains the pack carries, ``[planes, blocks, slices]``: the proxy.
        measure: ``auto``, ``exhaustive`` or ``proxy``.
    """
    ladder = manifest.ladder
    levels = _first_levels(ladder, measure)
    rounding = rounding_losses(bench, seed=seed)
    if measure == "proxy":
        whole = shard_losses(bench, levels, whole=True)
        gains = scaled_to_blocks(stored, beyond(rounding, mean_losses(whole))[:, :, 0])
        notes: dict[str, Any] = {"measured": "whole blocks; shards by the pack's earlier gains"}
        return Importances(by_block(gains, manifest), notes)
    measured, agreed = shard_losses(bench, levels), 0.0
    while len(levels) < len(ladder):
        agreed = rest_agreement(beyond(rounding, mean_losses(measured)), stored)
        if agreed >= AGREEMENT:
            break
        levels = (*levels, ladder[len(levels) - 1])
        measured = np.concatenate([measured, shard_losses(bench, levels[-1:])], axis=1)
    losses = beyond(rounding, mean_losses(measured))
    gains = gains_of(with_rest(losses, stored))
    measured[LOSS] -= rounding[:, None, None].astype(np.float32)
    notes = _notes(bench, measured, gains, stored, seed=seed)
    notes["rounding"] = [float(f"{loss:.6g}") for loss in rounding]
    notes["measured"] = f"every shard lowered alone to {', '.join(map(_level, levels))}"
    complete = len(levels) == len(ladder)
    if not complete:
        notes["measured"] += (
            f"; what the planes above {_level(levels[-1])} gain is shared out by the pack's "
            f"earlier gains, whose ranks agree ({agreed:.2f})"
        )
    for plane, bits in enumerate(ladder):
        notes["planes"][str(bits)]["measured"] = complete or plane < len(levels) - 1
    return Importances(by_block(gains, manifest), notes)


def beyond(rounding: Float64Array, losses: Float64Array) -> Float64Array:
    """Losses ``[levels, blocks, slices]`` without what rounding alone would have cost."""
    return np.asarray(np.maximum(losses - rounding[:, None], 0.0))


def _first_levels(ladder: Sequence[int], measure: str) -> tuple[int, ...]:
    """The fidelities to measure in any case, absence first."""
    levels = (ABSENT, *ladder[:-1])
    return levels[:2] if measure == "auto" else levels


def _level(bits: int) -> str:
    return f"{bits} bits" if bits else "nothing"


def _notes(
    bench: Bench, measured: Float32Array, gains: Float64Array, stored: Float64Array, *, seed: int
) -> dict[str, Any]:
    """Stability of the ranking, plane by plane and of whole shards; cheaper ways; the metric."""
    losses = measured[LOSS]  # [levels, blocks, slices, n]
    ladder = bench.forward.manifest.ladder
    proxies = agreement(gains, stored)
    few = steps_of(mean_losses(measured[..., ::_FEW]))
    fewer = agreement(few, gains[: len(few)])
    planes: dict[str, Any] = {}
    for plane, bits in enumerate(ladder):
        entry: dict[str, Any] = {}
        if plane + 1 < len(losses) or len(losses) == len(ladder):  # of others the proxy is all
            upper = losses[plane + 1] if plane + 1 < len(losses) else np.zeros_like(losses[0])
            entry["spearman_proxy"] = round(proxies[plane], 3)
            entry |= stability(losses[plane] - upper, seed=seed).to_json()
        if plane < len(fewer):
            entry["spearman_tenth_of_texts"] = round(fewer[plane], 3)
        planes[str(bits)] = entry
    notes: dict[str, Any] = {"planes": planes}
    if len(losses) > 1:
        notes["shards"] = stability(losses[1], seed=seed).to_json() | {
            "spearman_proxy": round(
                spearman(gains[1:].sum(axis=0).ravel(), stored[1:].sum(axis=0).ravel()), 3
            )
        }
        notes["metric"] = _metric_notes(bench, measured[ANSWER][1], seed=seed)
    return notes


def _metric_notes(bench: Bench, answers: Float32Array, *, seed: int) -> dict[str, Any]:
    """What the metric itself would have said of shards at the lowest fidelity, ``[..., n]``."""
    judge = bench.judge
    if judge.metric != "accuracy":
        return {"note": "a rank correlation has no value per text: not compared shard by shard"}
    base = judge.hits(bench.measure("base", bench.base, "full model")[ANSWER])
    change = (judge.hits(answers) - base).reshape(-1, len(base)).astype(np.float32)
    errors = change.std(axis=1, ddof=1) / np.sqrt(len(base))
    return {
        "change_mean": float(f"{change.mean():.3g}"),
        "change_standard_deviation": float(f"{change.mean(axis=1).std():.3g}"),
        "change_standard_error": float(f"{errors.mean():.3g}"),
        "note": "accuracy against the labels when one shard has the lowest fidelity: its standard "
        "error is of the size of the changes, hence the ranking by loss",
        **stability(change, seed=seed).to_json(),
    }
