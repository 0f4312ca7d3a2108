"""Timing the lanes of this machine with the executors that will run on it.

In: a pack, a back end for it, and how long measuring may take. Out: ``Observations``: how long
reads, decodes, graphs and whole runs took. Short sequential runs over the pack's first layers time
each lane alone; pipelined runs show how much the lanes slow one another down. The executors that
answer texts are timed themselves, so no cost is left out. Knows nothing of fits or caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from time import perf_counter

import numpy as np

from sti.backend.interface import Backend
from sti.calibration.observations import Observations, PipelinedRun, StepTime
from sti.calibration.read_timer import time_reads
from sti.calibration.sample_texts import SampleTexts
from sti.device.lanes import COMPUTE, DECODE, LANES, STORAGE
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Outcome, Runner
from sti.pipeline.trace import Recorder
from sti.planning.plan import Plan, PlanRequest
from sti.planning.step_jobs import StepJob, prepare
from sti.planning.uniform import uniform_plan
from sti.storage.file_reader import FileReader

WORKLOADS = ((1, 16), (1, 128), (4, 16), (1, 64), (1, 32), (2, 64), (1, 256))
"""Batch and tokens of the runs that graphs are timed with, the most informative first."""

ESSENTIAL_WORKLOADS = 4
PIPELINED_WORKLOAD = (1, 64)
LONGEST_SHOT_S = 0.03
"""Seconds of a sequential run: it covers as many layers as fit, from 1 to ``MOST_LAYERS``."""
MOST_LAYERS = 3
CONNECT_REPEATS = 3
"""How often ``connect`` is timed by itself; the fastest time is used."""
LONGEST_RUN_S = 0.1
"""Seconds of a pipelined run: one over more steps would show nothing new."""


class LaneTimer:
    """Times the lanes with runs of one pack. For one thread; ``close`` when done.

    Args:
        reader: the open pack.
        backend: computes the pack; nobody else may use it meanwhile.
    """

    def __init__(self, reader: PackReader, backend: Backend) -> None:
        self._reader = reader
        self._manifest = reader.manifest
        self._backend = backend
        self._samples = SampleTexts(reader)
        self._runner = Runner(reader, backend)
        self._seen = Observations()
        self._spoiled: list[StepTime] = []
        self.direct = self._runner.direct

    def close(self) -> None:
        """Release threads and file descriptors."""
        self._runner.close()

    def observe(self, budget_s: float) -> Observations:
        """Time everything once, then again until ``budget_s`` seconds are used up.

        Takes longer than that only where timing everything once does.
        """
        start = perf_counter()
        with FileReader(self._reader.path, descriptor=self._reader.descriptor) as storage:
            self._seen.reads += time_reads(
                storage, self._reader.file_bytes, budget_s=budget_s * 0.15
            )
        shots = list(self._shots())
        layers = self._warm_up(shots)
        essential = max(len(self._manifest.ladder), ESSENTIAL_WORKLOADS)
        for count, shot in enumerate(cycle(shots)):
            if count >= essential and perf_counter() - start >= budget_s * 0.6:
                break
            self._sequential(*shot, layers=layers)
        seen = {time.bits for time in self._seen.steps}
        # Of a fidelity that is damaged wherever it was timed, the one below is the best known.
        self._seen.steps += [time for time in self._spoiled if time.bits not in seen]
        self._connect()
        self._pipelined(start + budget_s)
        return self._seen

    def _warm_up(self, shots: Sequence[tuple[int, Workload, int, int]]) -> int:
        """Run once before timing, for what is made at first use.

        Returns how many layers a sequential run should cover.
        """
        reads = self._seen.reads
        self._sequential(*shots[0], layers=1)
        start = perf_counter()
        self._sequential(*shots[1 % len(shots)], layers=1)
        layers = int(LONGEST_SHOT_S / (perf_counter() - start))
        self._seen = Observations(reads=reads)  # warm-up runs are not samples
        return max(1, min(layers, MOST_LAYERS, self._manifest.dimensions.layers))

    def _shots(self) -> Iterator[tuple[int, Workload, int, int]]:
        """Bits, workload, depth and width of the sequential runs: few, but varied."""
        dims = self._manifest.dimensions
        models = {model.width: model for model in self._manifest.submodels}
        sizes = [(model.depth, model.width) for model in models.values()]
        works = [(batch, min(tokens, dims.max_tokens)) for batch, tokens in WORKLOADS]
        count = max(len(self._manifest.ladder), len(works)) * len(sizes)
        for bits, (batch, tokens), (depth, width) in islice(
            zip(cycle(self._manifest.ladder), cycle(works), cycle(sizes), strict=False), count
        ):
            yield bits, Workload(batch, tokens), depth, width

    def _sequential(
        self, bits: int, workload: Workload, depth: int, width: int, *, layers: int
    ) -> None:
        """Run the first layers of a uniform plan step by step, and record every time."""
        plan = self._plan(bits, workload, depth, width)
        jobs = self._jobs(plan)[: layers * len(plan.steps) // depth]
        outcome = self._run(jobs, plan, sequential=True)
        spans = {
            (lane, span.name): span.duration_s
            for lane, found in outcome.trace.lanes.items()
            for span in found
        }
        lessened = {item.step for item in outcome.trace.downgrades}
        for job in jobs:
            (self._spoiled if job.name in lessened else self._seen.steps).append(
                StepTime(
                    kind=job.group.kind,
                    bits=bits,
                    shards=job.used,
                    weights=job.used * job.group.shard_weights,
                    decode_s=spans[DECODE, job.name],
                    workload=workload,
                    width=job.used,
                    compute_s=spans[COMPUTE, job.name],
                    connects=job.connects,
                )
            )
        for end in ("embed", "head"):
            self._seen.ends.append((end, workload, spans[COMPUTE, end]))
        self._seen.rows.append((workload.batch * workload.tokens, spans[STORAGE, "embeddings"]))

    def _connect(self) -> None:
        """Time ``connect`` by itself, without the blocks that it follows."""
        first = self._manifest.groups[0]
        groups = self._manifest.block(first.layer, first.kind)
        for workload in {time.workload: None for time in self._seen.steps}:
            batch, tokens = workload.batch, workload.tokens
            embeddings = self._backend.embedding_buffer(batch, tokens)
            embeddings[:] = 0.0
            types = np.zeros((batch, tokens), dtype=np.int64)
            state = self._backend.start(embeddings, types, [tokens] * batch)
            for group in groups:
                state.step(group, group.slices, connects=group is groups[-1])
            times = []
            for _ in range(CONNECT_REPEATS):
                start = perf_counter()
                state.connect(first.layer, first.kind)
                times.append(perf_counter() - start)
            self._seen.ends.append(("connect", workload, min(times)))

    def _pipelined(self, deadline: float) -> None:
        """Time pipelined runs over the first layers until the deadline, at least one."""
        dims = self._manifest.dimensions
        ladder = self._manifest.ladder
        batch, tokens = PIPELINED_WORKLOAD
        workload = Workload(batch, min(tokens, dims.max_tokens))
        plan = self._plan(ladder[len(ladder) // 2], workload, dims.layers, dims.slices)
        jobs = self._jobs(plan)
        layer = len(jobs) // dims.layers
        first = self._run(jobs[:layer], plan, sequential=False)
        layer_s = first.trace.end_s
        count = layer * max(1, min(dims.layers, int(LONGEST_RUN_S / layer_s)))
        names = {job.name for job in jobs[:count]}
        self._seen.pipelined_plan = replace(plan, steps=plan.steps[:count])
        total_s = 0.0
        while not self._seen.pipelined or perf_counter() + total_s < deadline:
            start = perf_counter()
            trace = self._run(jobs[:count], plan, sequential=False).trace
            total_s = perf_counter() - start
            busy_s = {
                lane: sum(
                    span.duration_s for span in trace.lanes.get(lane, ()) if span.name in names
                )
                for lane in LANES
            }
            self._seen.pipelined.append(PipelinedRun(total_s, busy_s))

    def _run(self, jobs: Sequence[StepJob], plan: Plan, *, sequential: bool) -> Outcome:
        texts = self._samples.texts(plan.workload.batch, plan.workload.tokens)
        start = perf_counter()
        encodings = [self._samples.tokenizer.encode(text) for text in texts]
        count = sum(len(encoding.ids) for encoding in encodings)
        self._seen.tokens.append((count, perf_counter() - start))
        return self._runner.run(
            jobs,
            plan,
            encodings,
            mode="sequential" if sequential else "pipelined",
            recorder=Recorder(perf_counter()),
            adapt=True,  # what a run may answer with must not keep the machine from being measured
        )

    def _plan(self, bits: int, workload: Workload, depth: int, width: int) -> Plan:
        return uniform_plan(
            PlanRequest(self._manifest, self._reader.pack_id, workload),
            bits=bits,
            depth=depth,
            width=width,
        )

    def _jobs(self, plan: Plan) -> tuple[StepJob, ...]:
        return prepare(plan, self._manifest, self._reader.group_offset)
