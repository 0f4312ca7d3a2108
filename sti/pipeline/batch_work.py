"""What the executors call to compute one batch of texts, and to note when it was done.

In: where the batch comes from (texts to be embedded, or hidden states of other devices), a
recorder. Out: states of the back end that steps and connects are computed on, and the head's answer
for each group of sentences, or their hidden states. Knows nothing of threads, plans or bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

from sti.arrays import Float32Array
from sti.backend.interface import BlocksGraph, SentenceState
from sti.device.lanes import COMPUTE, lane_of
from sti.pipeline.executor import Computation
from sti.pipeline.sources import Source
from sti.pipeline.trace import BLOCKS, Recorder
from sti.planning.lane_threads import Share
from sti.planning.plan import connect_name
from sti.planning.step_jobs import StepJob

if TYPE_CHECKING:
    from sti.planning.deadlines import Watch


class BatchWork:
    """One batch on its way through the model.

    Args:
        source: gives the states in front of the first block.
        recorder: is told of all work.
        watch: is told how far the steps are, if anybody wants to know.
        go_on: called before each step; raises where there is to be none.
    """

    def __init__(
        self,
        source: Source,
        recorder: Recorder,
        watch: Watch | None,
        go_on: Callable[[], None],
    ) -> None:
        self._source = source
        self._recorder, self._watch, self._go_on = recorder, watch, go_on
        self.states: list[SentenceState] = []
        """Of the groups of sentences, once the first step was computed or is."""

    @property
    def computation(self) -> Computation:
        """What an executor calls."""
        return Computation(self._begin, self._step, self._connect)

    def run_blocks(self, graph: BlocksGraph) -> None:
        """Start the texts, and compute all blocks of each group of them by one graph."""
        self._begin()
        for state in self.states:
            self._go_on()
            start = perf_counter()
            graph.run(state)
            self._recorder.add(COMPUTE, BLOCKS, start, perf_counter())

    def answers(self) -> tuple[Float32Array, ...]:
        """The head's answer for each group, ``[B, ...]``, once all steps are computed."""
        start = perf_counter()
        found = tuple(state.finish() for state in self.states)
        self._recorder.add(COMPUTE, "head", start, perf_counter())
        return found

    def _begin(self) -> None:
        self.states += self._source.start(self._recorder)

    def _step(self, job: StepJob, buffer: int, thread: int, share: Share) -> None:
        self._go_on()
        name = job.name
        if self._watch is not None:
            self._watch.begins(name)
        start = perf_counter()
        for state in self.states:
            state.step(
                job.group, job.used, variant=job.variant, buffer=buffer, lane=thread, share=share
            )
        end = perf_counter()
        self._recorder.add(lane_of(COMPUTE, thread), name, start, end)
        if self._watch is not None:
            self._watch.has_computed(name, end - start, thread=thread)

    def _connect(self, job: StepJob, thread: int) -> None:
        start = perf_counter()
        for state in self.states:
            state.connect(job.group.layer, job.group.kind)
        name = connect_name(job.group.layer, job.group.kind)
        self._recorder.add(lane_of(COMPUTE, thread), name, start, perf_counter())
