"""Timing the lanes of this machine with the executors that will run on it.

In: a pack, a back end for it, and how long measuring may take. Out: ``Observations``: how long
reads, decodes, graphs and whole runs took. Short sequential runs over the pack's first layers time
each lane alone; whole runs under each kind of threads show how much the lanes slow one another
down. The executors that answer texts are timed themselves, so no cost is left out. Knows nothing of
fits or caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from time import perf_counter
from typing import NamedTuple

from sti.backend.interface import Backend
from sti.calibration.observations import Observations, StepTime, TimedRun
from sti.calibration.read_timer import time_reads
from sti.calibration.sample_texts import SampleTexts
from sti.device.lanes import COMPUTE, DECODE, SEQUENTIAL, STORAGE, LaneThreads, by_work
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Outcome, Runner
from sti.pipeline.trace import Recorder
from sti.planning.plan import Plan, PlanRequest, connect_name
from sti.planning.step_jobs import StepJob, prepare
from sti.planning.uniform import uniform_plan
from sti.storage.file_reader import FileReader

WORKLOADS = ((1, 16), (1, 128), (4, 16), (1, 64), (1, 32), (2, 64), (1, 256))
"""Batch and tokens of the runs that graphs are timed with, the most informative first."""

ESSENTIAL_WORKLOADS = 4
RUN_WORKLOAD = (1, 64)
LONGEST_SHOT_S = 0.03
"""Seconds of a sequential run: it covers as many layers as fit, from 1 to ``MOST_LAYERS``."""
MOST_LAYERS = 3
LONGEST_RUN_S = 0.06
"""Seconds of a whole run: one over more steps would show nothing new."""
_ALONE_SHARE = 0.5
"""How much of the time is for reads and sequential runs."""


class _Shot(NamedTuple):
    """A sequential run of a uniform plan."""

    bits: int
    variants: Sequence[str]
    """How its products may be computed."""
    workload: Workload
    depth: int
    width: int


class LaneTimer:
    """Times the lanes with runs of one pack. For one thread; ``close`` when done.

    Args:
        reader: the open pack.
        backend: computes the pack; nobody else may use it meanwhile.
        choices: threads that whole runs are timed under.
    """

    def __init__(
        self, reader: PackReader, backend: Backend, choices: Sequence[LaneThreads]
    ) -> None:
        self._reader = reader
        self._manifest = reader.manifest
        self._variants, self._choices = backend.variants, choices
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
        essential = len(self._variants) * max(len(self._manifest.ladder), ESSENTIAL_WORKLOADS)
        for count, shot in enumerate(cycle(shots)):
            if count >= essential and perf_counter() - start >= budget_s * _ALONE_SHARE:
                break
            self._sequential(shot, layers=layers)
        seen = {time.bits for time in self._seen.steps}
        # Of a fidelity that is damaged wherever it was timed, the one below is the best known.
        self._seen.steps += [time for time in self._spoiled if time.bits not in seen]
        self._whole_runs(start + budget_s)
        return self._seen

    def _warm_up(self, shots: Sequence[_Shot]) -> int:
        """Run once before timing, for what is made at first use.

        Returns how many layers a sequential run should cover.
        """
        reads = self._seen.reads
        self._sequential(shots[0], layers=1)
        start = perf_counter()
        self._sequential(shots[1 % len(shots)], layers=1)
        layers = int(LONGEST_SHOT_S / (perf_counter() - start))
        self._seen = Observations(reads=reads)  # warm-up runs are not samples
        return max(1, min(layers, MOST_LAYERS, self._manifest.dimensions.layers))

    def _shots(self) -> Iterator[_Shot]:
        """The sequential runs: few, but varied."""
        dims = self._manifest.dimensions
        models = {model.width: model for model in self._manifest.submodels}
        sizes = [(model.depth, model.width) for model in models.values()]
        works = [(batch, min(tokens, dims.max_tokens)) for batch, tokens in WORKLOADS]
        # Exactly first, and then as the machine likes it, where that is another way.
        ways = [self._variants[:end] for end in range(1, len(self._variants) + 1)]
        count = max(len(self._manifest.ladder), len(works)) * len(sizes) * len(ways)
        for bits, way, (batch, tokens), (depth, width) in islice(
            zip(
                cycle(self._manifest.ladder), cycle(ways), cycle(works), cycle(sizes), strict=False
            ),
            count,
        ):
            yield _Shot(bits, way, Workload(batch, tokens), depth, width)

    def _sequential(self, shot: _Shot, *, layers: int) -> None:
        """Run the first layers of a uniform plan step by step, and record every time."""
        bits, variants, workload, depth, width = shot
        plan = self._plan(bits, workload, depth, width, variants)
        jobs = self._jobs(plan)[: layers * len(plan.steps) // depth]
        outcome = self._run(jobs, plan)
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
                    variant=job.variant,
                    compute_s=spans[COMPUTE, job.name],
                )
            )
            if job.connects:
                name = connect_name(job.group.layer, job.group.kind)
                self._seen.ends.append(("connect", workload, spans[COMPUTE, name]))
        for end in ("embed", "head"):
            self._seen.ends.append((end, workload, spans[COMPUTE, end]))
        self._seen.rows.append((workload.batch * workload.tokens, spans[STORAGE, "embeddings"]))

    def _whole_runs(self, deadline: float) -> None:
        """Time runs over the first layers under each kind of threads until the deadline.

        Short and long ones in turns, each at least once.
        """
        dims, ladder = self._manifest.dimensions, self._manifest.ladder
        batch, tokens = RUN_WORKLOAD
        workload = Workload(batch, min(tokens, dims.max_tokens))
        plan = self._plan(
            ladder[len(ladder) // 2], workload, dims.layers, dims.slices, self._variants
        )
        jobs = self._jobs(plan)
        layer = len(jobs) // dims.layers
        start = perf_counter()
        self._run(jobs[:layer], plan)
        layers = max(1, min(dims.layers, int(LONGEST_RUN_S / (perf_counter() - start))))
        plans = [
            replace(plan, threads=threads, steps=plan.steps[: count * layer])
            for threads in self._choices
            for count in sorted({1, layers})
        ]
        for each in plans:  # threads are started, and sessions made, at first use
            self._run(jobs[: len(each.steps)], each)
        start = perf_counter()
        round_s = 0.0
        while not self._seen.runs or perf_counter() + round_s < deadline:
            for each in plans:
                self._time_run(jobs[: len(each.steps)], each)
            if not round_s:
                round_s = perf_counter() - start

    def _time_run(self, jobs: Sequence[StepJob], plan: Plan) -> None:
        start = perf_counter()
        trace = self._run(jobs, plan).trace
        total_s = perf_counter() - start
        names = plan.work_names
        busy_s = {
            lane: sum(span.duration_s for span in spans if span.name in names)
            for lane, spans in trace.lanes.items()
        }
        self._seen.runs.append(TimedRun(plan, total_s, by_work(busy_s)))

    def _run(self, jobs: Sequence[StepJob], plan: Plan) -> Outcome:
        texts = self._samples.texts(plan.workload.batch, plan.workload.tokens)
        start = perf_counter()
        encodings = [self._samples.tokenizer.encode(text) for text in texts]
        count = sum(len(encoding.ids) for encoding in encodings)
        self._seen.tokens.append((count, perf_counter() - start))
        return self._runner.run(
            jobs,
            plan,
            encodings,
            mode="planned",
            recorder=Recorder(perf_counter()),
            adapt=True,  # what a run may answer with must not keep the machine from being measured
        )

    def _plan(
        self, bits: int, workload: Workload, depth: int, width: int, variants: Sequence[str]
    ) -> Plan:
        return uniform_plan(
            PlanRequest(self._manifest, self._reader.pack_id, workload),
            bits=bits,
            threads=SEQUENTIAL,
            variants=variants,
            depth=depth,
            width=width,
        )

    def _jobs(self, plan: Plan) -> tuple[StepJob, ...]:
        return prepare(plan, self._manifest, self._reader.group_offset)
