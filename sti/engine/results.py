"""What a call answers and what it cost.

In: a run's outcome, its batch and its plan. Out: ``Result``, which gives its own JSON. Knows
nothing of files, planning or threads; the answers themselves are made in ``sti.engine.answers``,
and the results of several batches become one in ``sti.engine.merging``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sti.arrays import Float32Array
from sti.engine.answers import (
    Answer,
    ClassAnswer,
    EmbeddingAnswer,
    Label,
    LabelAnswer,
    SpanAnswer,
    TextSpan,
    Value,
    ValueAnswer,
    make_answer,
)
from sti.engine.inputs import Batch, check_threshold
from sti.engine.timing import Timing
from sti.errors import InputError
from sti.model.manifest import Manifest
from sti.model.quality import Estimate
from sti.model.workload import Workload, bucket
from sti.pipeline.runner import Outcome
from sti.pipeline.trace import Trace
from sti.planning.downgrade import Downgrade, downgraded
from sti.planning.expected_loss import expected_loss
from sti.planning.plan import Plan
from sti.planning.stages import Stage
from sti.text.encoding import Text
from sti.units import format_size

AnswerT = TypeVar("AnswerT", EmbeddingAnswer, ClassAnswer, LabelAnswer, ValueAnswer, SpanAnswer)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Result:
    """The answer to one call, or to one batch of a stream.

    ``answer`` is of a type for each task. The properties reach into it and never give None: what a
    task does not have raises ``InputError``, which names the task and what to use instead.

    A call whose texts were answered in several batches has a part for each. What it cost is that of
    all of them; ``plan``, ``workload`` and ``quality`` are those of the part with the least
    expected quality.
    """

    task: str
    """The pack's: ``embedding``, ``classification``, ``multi_label``, ``regression``, or
    ``tagging``."""
    texts: tuple[Text, ...]
    """What was answered, in the order of the answers."""
    answer: Answer
    timing: Timing
    bytes_read: int
    """Bytes read from storage in this call, token embeddings included."""
    plan: Plan
    """The plan as used: without planes that were left out. Pinned, it gives the same answer."""
    workload: Workload
    """Size of the batch, rounded up. A pinned plan may be made, and predict, for another one."""
    quality: Estimate | None
    """The metric to expect of the plan as used; None for packs that have not measured theirs."""
    trace: Trace
    tokens: int
    """Of all texts, special ones included."""
    truncated: int
    """How many texts were cut to the model's token limit."""
    notices: tuple[str, ...]
    """What else was warned of: that the pack's file was replaced or deleted, or that a pinned plan
    was made for shorter texts."""
    prompt: str = ""
    """What was put in front of each text, or of the first of each pair."""
    stages: tuple[Stage, ...] = ()
    """Which layers ran on which device; none where this machine ran all of them."""
    merged: tuple[Result, ...] = ()
    """The results of several batches that this one is made of; none for one batch."""

    @property
    def parts(self) -> tuple[Result, ...]:
        """The result of each batch, in order: where there was one, this result itself."""
        return self.merged or (self,)

    @property
    def met(self) -> bool | None:
        """Whether no batch took longer than the target's latency; None where there is none."""
        return None if self.plan.target.latency_s is None else self.late_s == 0

    @property
    def late_s(self) -> float:
        """Seconds beyond the target's latency, of the latest batch.

        0 where it was met, or where there is none.
        """
        if self.merged:
            return max(part.late_s for part in self.merged)
        latency_s = self.plan.target.latency_s
        return 0.0 if latency_s is None else max(0.0, self.timing.total_s - latency_s)

    @property
    def outgrown(self) -> bool:
        """Whether the plan, being pinned, was made for less: it takes longer than predicted."""
        return not self.workload.within(self.plan.workload)

    @property
    def downgrades(self) -> tuple[Downgrade, ...]:
        """Planes that were left out: damaged ones, and those that would have come too late."""
        return self.trace.downgrades

    def left_out(self, reason: str) -> tuple[Downgrade, ...]:
        """Those of ``downgrades`` with this reason: ``damaged`` or ``late``."""
        return tuple(item for item in self.downgrades if item.reason == reason)

    @property
    def embeddings(self) -> Float32Array:
        """float32 ``[n, d]``, for embedding packs."""
        return self._answer(EmbeddingAnswer, "embeddings").embeddings

    @property
    def classes(self) -> tuple[tuple[Label, ...], ...]:
        """For classifiers, for each text: all classes, best first, whether in scope or not.

        Where several labels may hold, all of them, whether they do or not.
        """
        if isinstance(self.answer, LabelAnswer):
            return self.answer.classes
        return self._answer(ClassAnswer, "classes").classes

    @property
    def labels(self) -> tuple[tuple[Label, ...], ...]:
        """Where several labels may hold, for each text: those that do, by falling score."""
        return self._answer(LabelAnswer, "labels").labels

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
        if isinstance(self.answer, ClassAnswer | LabelAnswer | ValueAnswer):
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

        0 for packs without a ``rejection``. Where several labels may hold: the least score of
        one that does.
        """
        if isinstance(self.answer, LabelAnswer):
            return self.answer.threshold
        return self._answer(ClassAnswer, "threshold").threshold

    def at(self, threshold: float) -> Result:
        """The same result, where the labels hold that score at least ``threshold``.

        Raises:
            InputError: it is not from 0 to 1, or labels of this task exclude one another.
        """
        check_threshold(self.task, threshold)
        answer = replace(self._answer(LabelAnswer, "labels"), threshold=float(threshold))
        parts = tuple(part.at(threshold) for part in self.merged)
        return replace(self, answer=answer, merged=parts)

    def to_json(self) -> dict[str, Any]:
        """A JSON object: the answer, timing, bytes, the plan and what was left out of it.

        ``batches`` has a summary of each part, with its ``texts`` counted.
        """
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
            **({"prompt": self.prompt} if self.prompt else {}),
            **({"stages": [item._asdict() for item in self.stages]} if self.stages else {}),
            "batches": [part.summary() for part in self.parts],
            "plan": self.plan.to_json(),
        }

    def summary(self) -> dict[str, Any]:
        """A short JSON object: how many texts there were, what they cost, and by which plan."""
        plan, quality = self.plan, self.quality
        return {
            "texts": len(self.texts),
            "workload": self.workload._asdict(),
            "total_s": round(self.timing.total_s, 6),
            "met": self.met,
            "late_s": round(self.late_s, 6),
            "bytes_read": self.bytes_read,
            "depth": plan.depth,
            "width": plan.width,
            "expected": None if quality is None else quality.value,
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
    most = manifest.dimensions.max_tokens
    return Result(
        task=manifest.task,
        texts=tuple(batch.texts),
        answer=make_answer(manifest, batch, outcome.outputs, plan),
        timing=Timing(total_s, trace.plan_s, trace.stall_s(), trace.lanes, trace.waits_s),
        bytes_read=outcome.bytes_read,
        plan=plan,
        workload=bucket(len(batch.texts), batch.mean_tokens, most=most),
        quality=_quality(manifest, plan),
        trace=trace,
        tokens=batch.tokens,
        truncated=batch.truncated,
        notices=notices,
        prompt=batch.prompt,
        stages=outcome.stages,
    )


def _quality(manifest: Manifest, plan: Plan) -> Estimate | None:
    if plan.predicted is not None or manifest.quality is None:
        return None if plan.predicted is None else plan.predicted.quality
    return manifest.quality.estimate(expected_loss(manifest, plan))
