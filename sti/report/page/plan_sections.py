"""The sections of a page about the plan: what will happen, why, and what else there is. Pure.

In: what the page says. Out: parts of HTML, in the order in which a reader asks.
"""

from __future__ import annotations

from sti.planning.lane_limits import WAITING
from sti.planning.plan import Prediction
from sti.planning.prediction import mean_bits
from sti.report.outcomes import outcome_table
from sti.report.page.facts import PageFacts
from sti.report.page.figures import fidelity_figure, frontier_figure, timeline_figure
from sti.report.page.html import Part, folded, of_hundred, paragraph, section, table, tiles
from sti.report.wording import counted, show_metric
from sti.units import format_size, format_time

_SAME = 5e-4
"""Smaller differences of the metric are none."""


def expected_section(facts: PageFacts) -> Part:
    """What will happen."""
    plan, predicted = facts.plan, _predicted(facts)
    target, work = plan.target, plan.workload
    share, within = of_hundred(target.quantile), format_time(facts.promised_s)
    asked = "no latency was asked for, so the best quality in the pack is used"
    if target.latency_s is not None:
        asked = f"asked for: {format_time(target.latency_s)}"
    preload = sum(step.preload_bytes for step in plan.steps)
    held = f" and keeps {format_size(preload)} in memory between runs" if preload else ""
    texts = "A text" if work.batch == 1 else f"A batch of {work.batch} texts"
    what = (
        f"{texts} of up to {counted(work.tokens, 'token')} is answered in about "
        f"{format_time(predicted.total_s)}; {share} runs end within {within} ({asked})."
    )
    how = (
        f"The plan uses {plan.depth} of {counted(facts.manifest.dimensions.layers, 'layer')} and "
        f"{plan.width} of {counted(facts.manifest.dimensions.slices, 'slice')}; each run reads "
        f"{format_size(predicted.bytes_read)}{held}. {facts.explanation.limit_words()}."
    )
    quality, metric = _quality_words(facts, predicted)
    wanted = "-" if target.latency_s is None else format_time(target.latency_s)
    figures = tiles(
        [
            ("typical run", format_time(predicted.total_s), "predicted"),
            (f"{share} runs", within, f"asked for: {wanted}"),
            metric,
            ("read a run", format_size(predicted.bytes_read), "from storage"),
            ("kept in memory", format_size(preload), "weights, between runs"),
            ("bits a weight", f"{mean_bits(facts.manifest, plan):.2f}", "on average"),
        ]
    )
    return section(
        "expected", "What will happen", paragraph(what), paragraph(quality), figures, paragraph(how)
    )


def _quality_words(facts: PageFacts, predicted: Prediction) -> tuple[str, tuple[str, str, str]]:
    """A sentence on the quality to expect, and its tile."""
    quality = facts.manifest.quality
    if quality is None:
        said = "How good its answers are was never measured (`sti-shard rank` does that)."
        return said, ("expected loss", f"{predicted.loss:.4g}", "0: the full model")
    found, name = predicted.quality or quality.estimate(predicted.loss), quality.metric
    low, high = (show_metric(name, value) for value in (found.low, found.high))
    full, value = quality.estimate(0.0).value, show_metric(name, found.value)
    below = "the same as the full model's"
    if full - found.value >= _SAME:
        points = show_metric(name, full - found.value, difference=True)
        below = f"{points} below the full model's {show_metric(name, full)}"
    said = f"The {name} to expect is {value} (95 times in 100 between {low} and {high}), {below}."
    return said, (f"expected {name}", value, f"full model: {show_metric(name, full)}")


def frontier_section(facts: PageFacts) -> Part:
    """What other latencies would give."""
    if not facts.frontier:
        said = "There is no other latency to compare with."
        return section("frontier", "Speed against quality", paragraph(said))
    quality = facts.manifest.quality
    rows = []
    for latency_s, plan in facts.frontier:
        found = plan.predicted
        assert found is not None, "plans of a frontier have predictions"
        value = f"{found.loss:.4g}"
        if quality is not None:
            estimate = found.quality or quality.estimate(found.loss)
            value = show_metric(quality.metric, estimate.value)
        size = f"{plan.depth} x {plan.width}"
        took, read = format_time(found.total_s), format_size(found.bytes_read)
        rows.append([format_time(latency_s), value, size, took, read])
    metric = "loss" if quality is None else quality.metric
    header = ["latency", metric, "layers x slices", "typical", "reads"]
    numbers = folded("The numbers", table("Plans by latency", header, rows))
    if len({plan.predicted and plan.predicted.loss for _, plan in facts.frontier}) == 1:
        least = format_time(facts.frontier[0].latency_s)
        said = f"Every latency that can be kept, from {least} on, gives the same quality."
        return section("frontier", "Speed against quality", paragraph(said), numbers)
    said = (
        "Each point is the best plan for that latency, all else being as asked for, from the "
        "shortest latency that can be kept to where more time brings no better answers."
    )
    drawn = frontier_figure(facts.manifest, facts.plan, facts.promised_s, facts.frontier)
    return section("frontier", "Speed against quality", paragraph(said), drawn, numbers)


def fidelity_section(facts: PageFacts) -> Part:
    """Which bits each part has, and why."""
    plan, manifest = facts.plan, facts.manifest
    said = (
        "Each cell is a part of the model: its row is the layer, its column the slice. The "
        "stronger its colour, the more bits its weights have; an empty one is left out."
    )
    description = (
        f"{plan.depth} layers by {plan.width} slices are in use, with "
        f"{mean_bits(manifest, plan):.2f} bits a weight on average."
    )
    header, rows = facts.explanation.block_table()
    named = [[f"{layer} {kind}", *rest] for layer, kind, *rest in rows]
    why = folded(
        "Why no block has more bits",
        paragraph("One plane more for a block: what it would buy, what it costs a run, why not."),
        table("Blocks", ["block", *header[2:]], named),
        *map(paragraph, facts.explanation.block_notes()),
    )
    drawn = fidelity_figure(manifest, plan, description)
    return section("fidelities", "Where the bits go", paragraph(said), drawn, why)


def predicted_section(facts: PageFacts) -> Part:
    """When each lane will work."""
    predicted = _predicted(facts)
    said = (
        f"What each lane does, as predicted: {format_time(predicted.total_s)} in all, in "
        f"{format_time(predicted.stall_s)} of which the calling thread has nothing to do."
    )
    drawn = timeline_figure(predicted.lanes, "Timeline, predicted")
    return section("predicted", "The run as predicted", paragraph(said), drawn)


def limits_section(facts: PageFacts) -> Part:
    """What limits the run, and what more would buy."""
    explanation = facts.explanation
    header, rows = explanation.lane_table()
    parts = [
        paragraph(f"{explanation.limit_words()}."),
        table("Lanes", ["lane", *header[1:]], rows),
        paragraph(
            "Longest chain: each part waits for the one before; together they are the run.",
            f"{WAITING.capitalize()}: what runs take beyond their lanes, by what was measured.",
        ),
    ]
    if explanation.outcomes is None:
        parts.append(paragraph("The fidelities were given, so no other target is compared."))
    else:
        names, cells, notes = outcome_table(facts.manifest, facts.plan, explanation.outcomes)
        said = (
            "What a little more latency, memory or preload would buy, and less latency cost. "
            "The first row is this plan; the others say what changes in quality, reads and time."
        )
        parts += [paragraph(said), table("Other targets", names, cells), *map(_sentence, notes)]
    return section("limits", "What limits it, and what more would buy", *parts)


def _sentence(said: str) -> Part:
    return paragraph(f"{said[:1].upper()}{said[1:]}.")


def _predicted(facts: PageFacts) -> Prediction:
    predicted = facts.plan.predicted
    assert predicted is not None, "plans that are shown have predictions"
    return predicted
