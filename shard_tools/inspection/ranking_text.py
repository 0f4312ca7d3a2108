"""What a ranking found, as text for a terminal.

In: descriptions as ``pack_text`` makes them, and a pack's notes. Out: tables and sentences. Notes
come from the pack and may hold anything: what is missing or malformed is left out. Measures
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sti.model.manifest import Manifest
from sti.model.quality import Quality, Rejection
from sti.report.tables import aligned
from sti.report.wording import show_metric

_STABILITY = (
    ("spearman_halves", "half against half"),
    ("spearman_bootstrap_low", "resampled (95 %)"),
    ("beyond_noise", "beyond noise"),
    ("spearman_proxy", "earlier gains"),
    ("spearman_tenth_of_texts", "a tenth of the texts"),
)


def render_submodels(submodels: Sequence[Mapping[str, Any]], metric: str | None) -> str:
    """A table: what to expect of each submodel at each uniform fidelity."""
    key = metric or "loss"
    header = ["submodel", *(f"{entry['bits']} bits" for entry in submodels[0]["uniform"])]
    rows = [
        [f"{item['depth']} x {item['width']}"]
        + [format_metric(metric, float(entry[key])) for entry in item["uniform"]]
        for item in submodels
    ]
    title = f"expected {metric or 'loss'} with every shard in use at"
    return f"{title}\n{aligned(header, rows)}"


def render_quality(quality: Quality | None, rejection: Rejection | None) -> str:
    """What the pack knows of its own answers, in sentences; nothing for a pack that does not."""
    lines = []
    if quality is not None:
        best = format_metric(quality.metric, quality.values[0])
        lines.append(
            f"quality: {quality.metric} {best} at best, measured on {quality.examples} texts; "
            f"residual {format_error(quality.metric, quality.residual)}"
        )
    if rejection is not None:
        lines.append(
            f"{rejection.label}: scores below {rejection.threshold(0.0):.3f} (full model), which "
            f"{rejection.accepted * 100:.0f} % of texts in scope reach; temperature "
            f"{rejection.temperature:g}"
        )
    return "".join(f"{line}\n" for line in lines)


def render_ranking(manifest: Manifest) -> str:
    """What ``sti-shard rank`` says when it is done, and ``inspect`` of a ranked pack."""
    notes = manifest.notes.get("ranking")
    if not isinstance(notes, dict):
        return ""
    parts = [_about(notes), _planes(notes)]
    fit = manifest.notes.get("quality")
    if manifest.quality is not None and isinstance(fit, dict):
        parts.append(_fit(fit, manifest.quality.metric))
    refused = manifest.notes.get("rejection")
    if manifest.rejection is not None and isinstance(refused, dict):
        recalls = refused.get("recall_full_model")
        if isinstance(recalls, dict):
            listed = ", ".join(f"{_share(value)} at {bits} bits" for bits, value in recalls.items())
            parts.append(
                f"{manifest.rejection.label}: refused of {refused.get('data')}: {listed}\n"
            )
    return "".join(parts)


def format_metric(metric: str | None, value: float) -> str:
    """A metric as ``show_metric`` writes it, a loss (None) with three digits."""
    return show_metric(metric, value) if metric else f"{value:.3g}"


def format_error(metric: str, value: float) -> str:
    """A difference of metrics: points of a percentage, or of a correlation."""
    return f"{100 * value:.2f} points" if metric == "accuracy" else f"{value:.4f}"


def _about(notes: Mapping[str, Any]) -> str:
    return (
        f"ranked on {notes.get('examples')} texts of {notes.get('data')}; loss: "
        f"{notes.get('loss')}\nmeasured: {notes.get('measured')}\n"
    )


def _planes(notes: Mapping[str, Any]) -> str:
    """Stability, one row per plane."""
    planes = notes.get("planes")
    if not isinstance(planes, dict):
        return ""
    entries = [(f"to {bits} bits", entry) for bits, entry in planes.items()]
    entries.append(("whole shard", notes.get("shards")))
    rows = [
        [name, *(_number(entry.get(key)) for key, _ in _STABILITY)]
        for name, entry in entries
        if isinstance(entry, dict)
    ]
    header = ["rank correlations", *(title for _, title in _STABILITY)]
    text = aligned(header, rows)
    metric = notes.get("metric")
    if isinstance(metric, dict) and "change_standard_error" in metric:
        text += (
            f"accuracy instead of loss: one shard at the lowest fidelity changes it by "
            f"{_number(metric.get('change_standard_deviation'), '.2g')} (standard deviation), "
            f"known to {_number(metric.get('change_standard_error'), '.2g')}; half against half "
            f"{_number(metric.get('spearman_halves'))}\n"
        )
    return text


def _fit(notes: Mapping[str, Any], metric: str) -> str:
    values = [notes.get(key) for key in ("full_model", "mean_absolute_error", "residual")]
    full, missed, residual = (v if isinstance(v, float) else 0.0 for v in values)
    return (
        f"{metric} of the full model {format_metric(metric, full)}; predicted within "
        f"{format_error(metric, missed)} on average (standard deviation "
        f"{format_error(metric, residual)}) on {notes.get('plans_held_out')} plans left out of "
        f"the fit\n"
    )


def _number(value: object, form: str = ".2f") -> str:
    return format(value, form) if isinstance(value, (int, float)) else "-"


def _share(value: object) -> str:
    return f"{value * 100:.1f} %" if isinstance(value, float) else "-"
