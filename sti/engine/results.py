"""What a run answers and what it cost.

In: a run's outcome, its batch and its plan. Out: ``Result``, which gives its own JSON. Knows
nothing of files, planning or threads; the answers themselves are made in ``sti.engine.answers``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from sti.arrays import Float32Array
from sti.engine.answers import (
    Answer,
    ClassAnswer,
    EmbeddingAnswer,
    Label,
    SpanAnswer,
    TextSpan,
    Value,
    ValueAnswer,
    make_answer,
)
from sti.engine.inputs import Batch
from sti.errors import InputError
from sti.model.manifest import Manifest
from sti.model.quality import Estimate
from sti.pipeline.runner import Outcome
from sti.pipeline.trace import PLAN, Trace
from sti.planning.downgrade import Downgrade, downgraded
from sti.planning.expected_loss import expected_loss
from sti.planning.plan import Plan
from sti.planning.span import Span, busy_s
from sti.report.wording import show_metric
from sti.units import format_size

AnswerT = TypeVar("AnswerT", EmbeddingAnswer, ClassAnswer, ValueAnswer, SpanAnswer)


class Timing(NamedTuple):
    """What a call took, in seconds. Lanes overlap, so they add up to more than the total."""

    total_s: float
    """From texts in to answers out."""
    plan_s: float
    """Making the plan, for the first texts of their length."""
    stall_s: float
    """The calling thread having nothing to do, from the embedding of the texts on."""
    lanes: Mapping[str, tuple[Span, ...]]
    """Lane to its work, in order: ``storage``, ``decode`` and ``compute``, and those of further
    threads that share the steps, ``decode 1``, ``compute 1`` and so on."""

    @property
    def busy_s(self) -> dict[str, float]:
        """Lane to the seconds in which it worked, planning aside."""
        return {
            lane: busy_s(span for span in spans if span.name != PLAN)
            for lane, spans in self.lanes.items()
        }

    def to_json(self) -> dict[str, Any]:
        """A JSON object; seconds, to the microsecond."""
        return {
            "total_s": round(self.total_s, 6),
            "plan_s": round(self.plan_s, 6),
            "stall_s": round(self.stall_s, 6),
            "busy_s": {lane: round(busy, 6) for lane, busy in self.busy_s.items()},
            "lanes": {
                lane: [
                    {
                        "name": span.name,
                        "start_s": round(span.start_s, 6),
                        "end_s": round(span.end_s, 6),
                    }
                    for span in spans
                ]
                for lane, spans in self.lanes.items()
            },
        }


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result:
    """The answer to one call.

    ``answer`` is of a type for each task. The properties reach into it and never give None: what a
    task does not have raises ``InputError``, which names the task and what to use instead.
    """

    task: str
    """The pack's: ``embedding``, ``classification``, ``regression`` or ``tagging``."""
    answer: Answer
    timing: Timing
    bytes_read: int
    """Bytes read from storage in this call, token embeddings included."""
    plan: Plan
    """The plan as used: without planes that were left out. Pinned, it gives the same answer."""
    quality: Estimate | None
    """The metric to expect of the plan as used; None for packs that have not measured theirs."""
    trace: Trace
    truncated: int
    """How many texts were cut to the model's token limit."""
    notices: tuple[str, ...]
    """What else was warned of: that the pack's file was replaced or deleted."""

    @property
    def met(self) -> bool | None:
        """Whether the call took no longer than the target's latency; None where there is none."""
        return None if self.plan.target.latency_s is None else self.late_s == 0

    @property
    def late_s(self) -> float:
        """Seconds beyond the target's latency; 0 where it was met, or where there is none."""
        latency_s = self.plan.target.latency_s
        return 0.0 if latency_s is None else max(0.0, self.timing.total_s - latency_s)

    @property
    def downgrades(self) -> tuple[Downgrade, ...]:
        """Planes that were left out because they are damaged."""
        return self.trace.downgrades

    @property
    def embeddings(self) -> Float32Array:
        """float32 ``[n, d]``, for embedding packs."""
        return self._answer(EmbeddingAnswer, "embeddings").embeddings

    @property
    def classes(self) -> tuple[tuple[Label, ...], ...]:
        """For classifiers, for each text: all classes, best first, whether in scope or not."""
        return self._answer(ClassAnswer, "classes").classes

    @property
    def decisions(self) -> tuple[tuple[Label, ...], ...]:
        """For classifiers: ``classes``, with the rejection in front where a text is out of scope.

        Its name is ``manifest.rejection.label``, its score what the best class leaves over.
        """
        return self._answer(ClassAnswer, "decisions").decisions()

    @property
    def values(self) -> tuple[tuple[Value, ...], ...]:
        """For regressions, for each text: the predicted values in the order of the labels."""
        return self._answer(ValueAnswer, "values").values

    @property
    def spans(self) -> tuple[tuple[TextSpan, ...], ...]:
        """For taggers, for each text: its labelled spans, in order."""
        return self._answer(SpanAnswer, "spans").spans

    @property
    def logits(self) -> Float32Array:
        """float32 ``[n, outputs]``, for classifiers and regressions."""
        if isinstance(self.answer, ClassAnswer | ValueAnswer):
            return self.answer.logits
        raise self._lacks("logits")

    @property
    def token_logits(self) -> tuple[Float32Array, ...]:
        """float32 ``[tokens, labels]`` for each text, for taggers."""
        return self._answer(SpanAnswer, "token_logits").token_logits

    @property
    def accepted(self) -> tuple[bool, ...]:
        """For classifiers, for each text: whether it is in scope.

        Always True for packs without a ``rejection``, which answer every text.
        """
        return self._answer(ClassAnswer, "accepted").accepted

    @property
    def threshold(self) -> float:
        """For classifiers: the least score in scope under this plan.

        0 for packs without a ``rejection``.
        """
        return self._answer(ClassAnswer, "threshold").threshold

    def to_json(self) -> dict[str, Any]:
        """A JSON object: the answer, timing, bytes, the plan and what was left out of it."""
        return {
            **self.answer.to_json(),
            "timing": self.timing.to_json(),
            "met": self.met,
            "late_s": round(self.late_s, 6),
            "bytes_read": self.bytes_read,
            "truncated": self.truncated,
            "quality": None if self.quality is None else self.quality._asdict(),
            "downgrades": [item.to_json() for item in self.downgrades],
            "notices": list(self.notices),
            "plan": self.plan.to_json(),
        }

    def __repr__(self) -> str:
        return (
            f"Result({self.task}: {self.answer!r}, {self.timing.total_s * 1e3:.1f} ms, "
            f"{format_size(self.bytes_read)} read)"
        )

    def _answer(self, kind: type[AnswerT], wanted: str) -> AnswerT:
        if isinstance(self.answer, kind):
            return self.answer
        raise self._lacks(wanted)

    def _lacks(self, wanted: str) -> InputError:
        tokens = wanted == "logits" and isinstance(self.answer, SpanAnswer)
        use = "token_logits" if tokens else self.answer.name
        return InputError(
            f"the pack is for {self.task}: its results have no `{wanted}`; use `{use}`"
        )


def make_result(
    manifest: Manifest,
    batch: Batch,
    plan: Plan,
    outcome: Outcome,
    *,
    total_s: float,
    notices: tuple[str, ...] = (),
) -> Result:
    """What a run gave, put into the form of the pack's task, with what it cost."""
    trace = outcome.trace
    plan = downgraded(plan, manifest, trace.downgrades)
    if plan.threads != trace.threads:
        plan = replace(plan, threads=trace.threads)
    return Result(
        task=manifest.task,
        answer=make_answer(manifest, batch, outcome.outputs, plan),
        timing=Timing(total_s, trace.plan_s, trace.stall_s(), trace.lanes),
        bytes_read=outcome.bytes_read,
        plan=plan,
        quality=_quality(manifest, plan),
        trace=trace,
        truncated=batch.truncated,
        notices=notices,
    )


def _quality(manifest: Manifest, plan: Plan) -> Estimate | None:
    if plan.predicted is not None or manifest.quality is None:
        return None if plan.predicted is None else plan.predicted.quality
    return manifest.quality.estimate(expected_loss(manifest, plan))


def describe_downgrades(downgrades: Sequence[Downgrade], quality: Estimate | None) -> str:
    """One line on what was left out of a run, and what to do."""
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
