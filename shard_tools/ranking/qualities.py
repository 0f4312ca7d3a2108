"""What metric to expect of a plan, and when to reject an answer, fitted on measured plans.

In: a bench, the ranked manifest, submodels measured at every uniform fidelity. Out: the manifest
with ``quality`` and ``rejection``, and notes on how good the fit is on plans that were left out of
it. Knows nothing of targets or machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from shard_tools.measuring.forward import Precision, counted_precision, uniform_precision
from shard_tools.measuring.judge import ANSWER, CONFIDENCE, LOSS, confidence
from shard_tools.ranking.calibration import Calibration
from shard_tools.ranking.predictor import Curve, Mixed, draw_mixed, fit_curve, residual
from shard_tools.ranking.shard_losses import Bench
from shard_tools.ranking.submodels import Measured
from sti.arrays import Float32Array
from sti.model.fidelity import groups_of, loss_of, uniform_counts
from sti.model.manifest import Manifest
from sti.model.quality import Quality, Rejection

FITTED = 72
"""Mixed plans that the curve is fitted to, beside the submodels at uniform fidelities."""
HELD_OUT = 48
"""Mixed plans that the residual is measured on."""
PLANS = FITTED + HELD_OUT

ACCEPTED = 0.95
OUT_OF_SCOPE = "out of scope"


@dataclass(frozen=True, slots=True)
class MeasuredPlan:
    """A plan's expected loss, and what was found: ``[3, n]`` as ``Judge.judge``."""

    expected: float
    found: Float32Array

    @property
    def loss(self) -> float:
        """As measured."""
        return float(self.found[LOSS].mean(dtype=np.float64))


def measure_quality(
    bench: Bench, manifest: Manifest, kept: Sequence[Measured], *, seed: int
) -> tuple[list[MeasuredPlan], Manifest, dict[str, Any]]:
    """Fit the metric to the expected loss.

    Args:
        manifest: ranked, with the submodels and curves that ``kept`` gave.

    Returns:
        All plans measured, the manifest with its ``quality``, and notes.
    """
    rng = np.random.default_rng(seed)
    fitted = _uniform(manifest, kept)
    mixed = [_measured(bench, manifest, draw_mixed(manifest, rng)) for _ in range(PLANS)]
    fitted += mixed[:FITTED]
    held_out = mixed[FITTED:]
    value = bench.judge.value
    values = [value(plan.found[ANSWER]) for plan in fitted]
    curve = fit_curve([plan.expected for plan in fitted], values, falling=True)
    measured = [value(plan.found[ANSWER]) for plan in held_out]
    left = residual(curve, [plan.expected for plan in held_out], measured)
    exact = residual(curve, [plan.loss for plan in held_out], measured)
    inside = residual(curve, [plan.expected for plan in fitted], values)
    ratios = [np.log((plan.loss + 1e-9) / (plan.expected + 1e-9)) for plan in held_out]
    quality = Quality(
        metric=bench.judge.metric,
        examples=bench.batches.count,
        residual=float(f"{left.deviation:.4g}"),
        losses=curve.places,
        values=curve.values,
    )
    notes = {
        "full_model": round(value(_base(fitted)[ANSWER]), 6),
        "plans_fitted": len(fitted),
        "plans_held_out": len(held_out),
        "residual": float(f"{left.deviation:.3g}"),
        "mean_absolute_error": float(f"{left.mean_absolute:.3g}"),
        "largest_error": float(f"{left.largest:.3g}"),
        "mean_absolute_error_with_measured_loss": float(f"{exact.mean_absolute:.3g}"),
        "mean_absolute_error_of_fitted_plans": float(f"{inside.mean_absolute:.3g}"),
        "typical_factor_of_loss": round(float(np.exp(np.median(np.abs(ratios)))), 3),
    }
    return fitted + held_out, manifest._replace(quality=quality), notes


def measure_rejection(
    bench: Bench, manifest: Manifest, plans: Sequence[MeasuredPlan], out_of_scope: Calibration
) -> tuple[Manifest, dict[str, Any]]:
    """The score below which an answer is rejected, and how many texts out of scope that catches."""
    curve = rejection_curve(plans)
    rejection = Rejection(
        label=OUT_OF_SCOPE,
        temperature=bench.judge.temperature,
        accepted=ACCEPTED,
        losses=curve.places,
        thresholds=curve.values,
    )
    batches = bench.forward.batches(out_of_scope.texts)
    full = manifest.submodels[0]
    groups = groups_of(manifest, full)
    recalls = {}
    for bits in manifest.ladder:
        precision = uniform_precision(manifest, full, bits)

        def measure(precision: Precision = precision) -> Float32Array:
            logits = bench.forward.logits(batches, precision)
            return confidence(logits, rejection.temperature).astype(np.float32)

        found = bench.journal.step(f"out_of_scope/{bits}", measure)
        counts = [uniform_counts(group, full.width, bits) for group in groups]
        threshold = rejection.threshold(loss_of(full, groups, counts))
        recalls[str(bits)] = round(float((found < threshold).mean()), 4)
    notes = {
        "data": out_of_scope.path.name,
        "examples": len(out_of_scope.texts),
        "temperature": rejection.temperature,
        "accepted": ACCEPTED,
        "threshold_full_model": rejection.threshold(0.0),
        "recall_full_model": recalls,
    }
    return manifest._replace(rejection=rejection), notes


def rejection_curve(plans: Sequence[MeasuredPlan]) -> Curve:
    """Thresholds along the expected loss, neighbours averaged."""
    quantiles = [
        float(np.quantile(plan.found[CONFIDENCE], 1.0 - ACCEPTED, method="lower")) for plan in plans
    ]
    return fit_curve([plan.expected for plan in plans], quantiles, falling=False)


def _uniform(manifest: Manifest, kept: Sequence[Measured]) -> list[MeasuredPlan]:
    """The submodels at uniform fidelities as plans, with the loss their curves expect."""
    plans = []
    for submodel, item in zip(manifest.submodels, kept, strict=True):
        groups = groups_of(manifest, submodel)
        for bits, found in zip(manifest.ladder, item.found, strict=True):
            counts = [uniform_counts(group, submodel.width, bits) for group in groups]
            plans.append(MeasuredPlan(loss_of(submodel, groups, counts), found))
    return plans


def _measured(bench: Bench, manifest: Manifest, mixed: Mixed) -> MeasuredPlan:
    groups = groups_of(manifest, mixed.submodel)
    precision = counted_precision(groups, mixed.counts, mixed.submodel.width)
    found = bench.measure(f"plan/{crc32(repr(precision).encode()):08x}", precision, "mixed plans")
    return MeasuredPlan(loss_of(mixed.submodel, groups, mixed.counts), found)


def _base(plans: Sequence[MeasuredPlan]) -> Float32Array:
    """The full model at the top: the plan without loss."""
    return min(plans, key=lambda plan: plan.loss).found
