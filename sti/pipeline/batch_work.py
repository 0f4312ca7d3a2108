"""What the executors call to compute one batch of texts, and to note when it was done.

In: encoded texts, what embeds them, a recorder. Out: states of the back end that steps and connects
are computed on, and the head's answer for each text. Knows nothing of threads, plans or bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from sti.arrays import Float32Array
from sti.backend.interface import BlocksGraph, SentenceState
from sti.device.lanes import COMPUTE, STORAGE, lane_of
from sti.pipeline.executor import Computation
from sti.pipeline.token_embeddings import Embedder
from sti.pipeline.trace import BLOCKS, EMBED, Recorder
from sti.planning.lane_threads import Share
from sti.planning.plan import connect_name
from sti.planning.step_jobs import StepJob
from sti.text.batching import group_by_length
from sti.text.encoding import Encoding

if TYPE_CHECKING:
    from sti.planning.deadlines import Watch


class BatchWork:
    """One batch on its way through the model.

    Args:
        encodings: the texts.
        embedder: embeds them.
        recorder: is told of all work.
        watch: is told how far the steps are, if anybody wants to know.
        go_on: called before each step; raises where there is to be none.
    """

    def __init__(
        self,
        encodings: Sequence[Encoding],
        embedder: Embedder,
        recorder: Recorder,
        watch: Watch | None,
        go_on: Callable[[], None],
    ) -> None:
        self._encodings, self._embedder = encodings, embedder
        self._recorder, self._watch, self._go_on = recorder, watch, go_on
        self._groups = group_by_length([len(encoding.ids) for encoding in encodings])
        self._states: list[SentenceState] = []
        self.row_bytes = 0
        """Bytes read of the token embedding table."""

    @property
    def computation(self) -> Computation:
        """What an executor calls."""
        return Computation(self._begin, self._step, self._connect)

    def run_blocks(self, graph: BlocksGraph) -> None:
        """Embed the texts, and compute all blocks of each group of them by one graph."""
        self._begin()
        for state in self._states:
            self._go_on()
            start = perf_counter()
            graph.run(state)
            self._recorder.add(COMPUTE, BLOCKS, start, perf_counter())

    def finish(self) -> tuple[Float32Array, ...]:
        """The head's answer for each text, once all steps are computed."""
        start = perf_counter()
        outputs: list[Float32Array | None] = [None] * len(self._encodings)
        for group, state in zip(self._groups, self._states, strict=True):
            for member, row in zip(group.members, state.finish(), strict=True):
                outputs[member] = row
        self._recorder.add(COMPUTE, "head", start, perf_counter())
        return tuple(row for row in outputs if row is not None)

    def _begin(self) -> None:
        start = perf_counter()
        rows = self._embedder.read(self._encodings)
        self.row_bytes = rows.raw.nbytes
        read = perf_counter()
        self._recorder.add(STORAGE, "embeddings", start, read)
        self._states += self._embedder.start(self._encodings, self._groups, rows)
        self._recorder.add(COMPUTE, EMBED, read, perf_counter())

    def _step(self, job: StepJob, buffer: int, thread: int, share: Share) -> None:
        self._go_on()
        name = job.name
        if self._watch is not None:
            self._watch.begins(name)
        start = perf_counter()
        for state in self._states:
            state.step(
                job.group, job.used, variant=job.variant, buffer=buffer, lane=thread, share=share
            )
        end = perf_counter()
        self._recorder.add(lane_of(COMPUTE, thread), name, start, end)
        if self._watch is not None:
            self._watch.has_computed(name, end - start, thread=thread)

    def _connect(self, job: StepJob, thread: int) -> None:
        start = perf_counter()
        for state in self._states:
            state.connect(job.group.layer, job.group.kind)
        name = connect_name(job.group.layer, job.group.kind)
        self._recorder.add(lane_of(COMPUTE, thread), name, start, perf_counter())
