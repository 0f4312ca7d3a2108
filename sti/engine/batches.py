"""Cuts texts into batches of consecutive texts, each answered within the target.

In: texts, one after another, and what a workload would run under (``EngineCore.plans``). Out: the
result of each batch. Takes a text only when the next batch may need it, and holds one batch. A
batch begins when its first text is tokenized; what it waits for texts does not count.

With a latency a batch grows while the plan for one text more is in time and as good as each of its
texts would get alone. So a batch that costs quality is not made. Without one it grows up to
``MOST_TEXTS`` and ``MOST_TOKENS``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import NamedTuple

from sti.engine.core import EngineCore
from sti.engine.inputs import Batch, check_text, check_texts
from sti.engine.merging import merge_results
from sti.engine.results import Result
from sti.engine.targets import TargetSpec
from sti.errors import InfeasibleError
from sti.model.workload import Workload, bucket
from sti.pipeline.runner import Mode
from sti.planning.expected_loss import expected_loss
from sti.planning.plan import Plan
from sti.text.encoding import Encoding, Text

MOST_TEXTS = 32
"""Texts in a batch: with more of them, reading and decoding are a small share already."""
MOST_TOKENS = 4096
"""Tokens in a batch, without padding, so that long texts take no more memory than short ones."""
_BATCHES_ALIKE = 8
"""Batches that are cut by the same plans before it is looked whether plans have changed."""
_LEAST_TOKENS = 3
"""Tokens of the shortest text, special ones included."""


class _Item(NamedTuple):
    """A text that was taken."""

    text: Text
    encoding: Encoding
    tokenize_s: float

    @property
    def tokens(self) -> int:
        return len(self.encoding.ids)


@dataclass(slots=True)
class _Growing:
    """A batch that more texts may join."""

    items: list[_Item] = field(default_factory=list)
    tokens: int = 0
    most_loss: float = math.inf
    """The largest expected loss that is as good as what each of the texts would get alone."""
    plan_s: float = 0.0
    """Seconds spent on how far to grow."""


class Batches:
    """The batches of one engine. Iterators of several threads take turns, batch by batch.

    Args:
        core: answers them.
    """

    def __init__(self, core: EngineCore) -> None:
        self._core = core
        self._pairs = core.reader.manifest.takes_pairs
        """Whether a text may be a pair."""
        self._losses: dict[Workload, float] = {}
        """What ``_loss`` found, for a few batches: plans may follow the machine."""
        self._aimed: TargetSpec | None = None
        self._batches_left = 0
        """Batches until ``_losses`` is forgotten."""

    def run(self, texts: Sequence[Text], mode: Mode, prompt: str) -> Result:
        """As ``Engine.run``: one batch, or as many as a latency or a budget of memory takes.

        Raises:
            InputError: there are no texts, or one cannot be used; nothing was run then.
        """
        if isinstance(texts, Sequence) and len(texts) > 1 and self._limited():
            check_texts(texts, pairs=self._pairs)
            return merge_results(list(self.results(texts, mode, prompt)))
        return self._core.run(texts, mode, prompt)

    def results(self, texts: Iterable[Text], mode: Mode, prompt: str) -> Iterator[Result]:
        """The results of all batches, in order; each is run when it is asked for.

        Raises:
            InputError: a text cannot be used; is told when the texts before it were answered, as
                is any exception of ``texts``.
        """
        for grown in self._cut(iter(texts), prompt):
            items = grown.items
            self._batches_left -= 1
            yield self._core.answer(
                Batch([item.text for item in items], [item.encoding for item in items], prompt),
                mode,
                tokenize_s=sum(item.tokenize_s for item in items),
                plan_s=grown.plan_s,
            )

    def _cut(self, texts: Iterator[Text], prompt: str) -> Iterator[_Growing]:
        items, grown = self._tokenized(texts, prompt), _Growing()
        while True:
            if grown.items and not self._may_grow(grown):
                yield grown
                grown = _Growing()
            failure: Exception | None = None
            try:
                item = next(items, None)
            except Exception as error:  # what came before is answered first
                item, failure = None, error
            if item is not None and self._join(grown, item):
                continue
            if grown.items:
                yield grown
            if failure is not None:
                raise failure
            if item is None:
                return
            grown = _Growing()
            self._join(grown, item)

    def _tokenized(self, texts: Iterator[Text], prompt: str) -> Iterator[_Item]:
        for number, text in enumerate(texts):
            start = perf_counter()
            check_text(number, text, pairs=self._pairs)
            encoding = self._core.encode(text, prompt)
            yield _Item(text, encoding, perf_counter() - start)

    def _join(self, grown: _Growing, item: _Item) -> bool:
        """Let a text join, if the batch is empty or remains as good with it."""
        count, tokens = len(grown.items) + 1, grown.tokens + item.tokens
        start = perf_counter()

        def work() -> tuple[float, bool]:
            if count == 1:
                self._look_again()
            most_loss = min(grown.most_loss, self._as_good(item.tokens))
            joins = count == 1 or self._fits(count, tokens, most_loss)
            sizes = [*map(_tokens, grown.items), item.tokens]
            return most_loss, joins and self._core.plans.has_room(sizes)

        most_loss, joins = self._core.use(work)
        grown.plan_s += perf_counter() - start
        if joins:
            grown.items.append(item)
            grown.tokens, grown.most_loss = tokens, most_loss
        return joins

    def _look_again(self) -> None:
        """Forget what was found for another target, or some time ago."""
        target = self._core.plans.target
        if target is not self._aimed or self._batches_left <= 0:
            self._losses.clear()
            self._aimed, self._batches_left = target, _BATCHES_ALIKE

    def _may_grow(self, grown: _Growing) -> bool:
        """Whether any text could join."""
        start = perf_counter()
        count, tokens = len(grown.items) + 1, grown.tokens + _LEAST_TOKENS
        fits = self._core.use(lambda: self._fits(count, tokens, grown.most_loss))
        grown.plan_s += perf_counter() - start
        return fits

    def _fits(self, count: int, tokens: int, most_loss: float) -> bool:
        """Whether so many texts, of so many tokens together, are a batch of at most this loss."""
        if count > MOST_TEXTS or tokens > MOST_TOKENS:
            return False
        mean = -(-tokens // count)
        return not self._timed() or self._loss(count, mean) <= most_loss

    def _limited(self) -> bool:
        """Whether there is a latency or a budget of memory to keep."""
        return self._core.use(
            lambda: self._timed() or self._core.plans.target.memory_bytes is not None
        )

    def _timed(self) -> bool:
        """Whether there is a latency to keep."""
        target = self._core.plans.target
        if target.plan is None:
            return target.latency_s is not None
        return self._plan(1, _LEAST_TOKENS).target.latency_s is not None

    def _as_good(self, tokens: int) -> float:
        """The largest loss as good as that of one such text; none is where it is not in time."""
        if not self._timed():
            return math.inf
        loss = self._loss(1, tokens)
        if math.isinf(loss):
            return -math.inf
        quality = self._core.reader.manifest.quality
        return loss if quality is None else quality.indistinct_from(loss)

    def _loss(self, count: int, tokens: int) -> float:
        """Expected loss of so many such texts; infinite where they are not in time."""
        manifest = self._core.reader.manifest
        workload = bucket(count, tokens, most=manifest.dimensions.max_tokens)
        if workload not in self._losses:
            loss = math.inf
            with suppress(InfeasibleError):
                plan = self._plan(*workload)
                if count == 1 or self._in_time(plan, workload):
                    loss = expected_loss(manifest, plan)
            self._losses[workload] = loss
        return self._losses[workload]

    def _plan(self, count: int, tokens: int) -> Plan:
        return self._core.plans.plan_for(batch=count, tokens=tokens).plan

    def _in_time(self, plan: Plan, workload: Workload) -> bool:
        """Whether such a batch keeps the latency of the plan that it would have."""
        if self._core.plans.target.plan is not None:
            return workload.within(plan.workload)  # no more than it was made for
        speeds, predicted, target = self._core.machine.known, plan.predicted, plan.target
        if speeds is None or predicted is None:
            return True
        promised_s = predicted.total_s * speeds.spread(plan.threads.name, target.quantile)
        return target.latency_s is None or promised_s <= target.latency_s


def _tokens(item: _Item) -> int:
    return item.tokens
