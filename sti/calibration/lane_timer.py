"""Timing the lanes of this machine with the executors that will run on it.

In: a pack, a back end for it, and how long measuring may take. Out: ``Observations``: how long
reads, decodes, graphs and whole runs took, and what share of it they waited for a core. Short
sequential runs over the pack's first layers time each lane alone; whole runs under each kind of
threads show how much the lanes slow one another down. They take turns, so that a machine that is
slower for a while is slower for all of them. The executors that answer texts are timed themselves,
so no cost is left out. Knows nothing of fits or caches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from time import perf_counter

from sti.backend.interface import Backend
from sti.calibration.disturbance import Watch
from sti.calibration.observations import EndTime, Observations, Sized, StepTime, TimedRun
from sti.calibration.read_timer import LEAST_ROUNDS, ReadTimer
from sti.calibration.sample_parts import SampleParts
from sti.calibration.sample_plans import SamplePlans, Shot, first_steps
from sti.calibration.sample_texts import SampleTexts
from sti.device.lanes import COMPUTE, DECODE, LINK, SEQUENTIAL, STORAGE, LaneThreads, by_work
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import READERS, Runner
from sti.pipeline.sources import HiddenStates
from sti.pipeline.trace import Recorder, Trace
from sti.planning.downgrade import Adapt
from sti.planning.plan import Plan, connect_name
from sti.planning.step_jobs import StepJob, prepare
from sti.storage.file_reader import FileReader
from sti.text.encoding import Encoding

LONGEST_SHOT_S = 0.03
"""Seconds of a sequential run: it covers as many layers as fit, from 1 to ``MOST_LAYERS``."""
MOST_LAYERS = 3
LONGEST_RUN_S = 0.06
"""Seconds of a whole run: one over more steps would show nothing new."""
LEAST_RUNS_S, MOST_REPEATS = 0.008, 5
"""Short whole runs are repeated for so many seconds, so that there are enough of them."""
LONGEST_S = 60.0
"""What took longer was not work: the clock was set, or the machine slept."""
_SHARES = {"reads": 0.12, "shots": 0.43, "runs": 0.45}
"""Of the time, for each kind of sample."""
_LEAST_S = 1e-4
_LEAST_ROW_S = 1e-9
"""Of a token embedding in a part without the table, which reads none."""
_MOST_TURNS = 20_000
"""Ends measuring where the clock stands still."""


class LaneTimer:
    """Times the lanes with runs of one pack. For one thread; ``close`` when done.

    Args:
        reader: the open pack.
        backend: computes the pack; nobody else may use it meanwhile.
        choices: threads that whole runs are timed under.
        storage: time reads.
        runs: time whole runs, and shots enough for all costs; else just enough for token
            embeddings.
    """

    def __init__(
        self,
        reader: PackReader,
        backend: Backend,
        choices: Sequence[LaneThreads],
        *,
        storage: bool = True,
        runs: bool = True,
    ) -> None:
        self._reader = reader
        self._manifest = reader.manifest
        self._before = set(threading.enumerate())
        self._choices = choices
        self._samples: SampleTexts | SampleParts = (
            SampleTexts(reader) if reader.part is None else SampleParts(reader.manifest)
        )
        self._plans = SamplePlans(reader.manifest, reader.pack_id, backend.variants)
        self._runner = Runner(reader, backend)
        self._file = FileReader(reader.path, descriptor=reader.descriptor)
        self._seen = Observations()
        self._spoiled: list[StepTime] = []
        self._storage, self._runs = storage, runs
        self._work: dict[str, Callable[[], None]] = {}
        self._alone = Watch()
        self.direct = self._runner.direct

    def close(self) -> None:
        """Release threads and file descriptors."""
        self._runner.close()
        self._file.close()

    def observe(self, budget_s: float) -> Observations:
        """Time everything once, then again in turns until ``budget_s`` seconds are used up.

        Takes longer than that only where timing everything once does. Called again, it goes on.
        """
        start = perf_counter()
        if not self._work:
            self._work = self._prepare()
        take_turns(self._work, _SHARES, start + budget_s)
        seen = {time.bits for time in self._seen.steps}
        # Of a fidelity that is damaged wherever it was timed, the one below is the best known.
        self._seen.steps += [time for time in self._spoiled if time.bits not in seen]
        return self._seen

    def _prepare(self) -> dict[str, Callable[[], None]]:
        """Warm up and time everything once; what is to be timed again, by kind of sample."""
        work: dict[str, Callable[[], None]] = {}
        if self._storage:
            reads = ReadTimer(self._file, self._reader.file_bytes)

            def read() -> None:
                self._seen.reads += [item for item in reads.once() if _is_time(item.seconds)]

            for _ in range(LEAST_ROUNDS):
                read()
            work["reads"] = read
        shots = list(self._plans.shots())
        layers = self._warm_up(shots)
        turns = cycle(shots)
        for _ in range(self._plans.essential if self._runs else 1):
            self._shoot(next(turns), layers=layers)
        work["shots"] = lambda: self._shoot(next(turns), layers=layers)
        if self._runs:
            work["runs"] = self._whole_runs()
        return work

    def _warm_up(self, shots: Sequence[Shot]) -> int:
        """Run once before timing, for what is made at first use.

        Returns how many layers a sequential run should cover.
        """
        reads = self._seen.reads
        self._shoot(shots[0], layers=1)
        start = perf_counter()
        self._shoot(shots[1 % len(shots)], layers=1)
        layers = int(LONGEST_SHOT_S / max(_LEAST_S, perf_counter() - start))
        self._seen = Observations(reads=reads)  # warm-up runs are not samples
        most = MOST_LAYERS if self._runs else 1
        return max(1, min(layers, most, self._manifest.dimensions.layers))

    def _shoot(self, shot: Shot, *, layers: int) -> None:
        """Run the first layers of a uniform plan step by step, and record every time."""
        plan = self._plans.of_shot(shot)
        jobs, workload = self._jobs(plan)[: first_steps(plan, layers)], shot.workload
        self._alone.start()
        trace, tokens = self._run(jobs, plan)
        waited = self._alone.share(alone_s=_read_s(trace))
        spans = {
            (lane, span.name): span.duration_s
            for lane, found in trace.lanes.items()
            for span in found
        }
        if not all(map(_is_time, (tokens.seconds, *spans.values()))):
            return
        self._seen.tokens.append(tokens._replace(waited=waited))
        lessened = {item.step for item in trace.downgrades}
        for job in jobs:
            (self._spoiled if job.name in lessened else self._seen.steps).append(
                StepTime(
                    kind=job.group.kind,
                    bits=shot.bits,
                    shards=job.used,
                    weights=job.used * job.group.shard_weights,
                    decode_s=spans[DECODE, job.name],
                    workload=workload,
                    width=job.used,
                    variant=job.variant,
                    compute_s=spans[COMPUTE, job.name],
                    waited=waited,
                )
            )
            if job.connects:
                name = connect_name(job.group.layer, job.group.kind)
                self._end("connect", shot, spans[COMPUTE, name], waited)
        for end in ("embed", "head"):
            self._end(end, shot, spans[COMPUTE, end], waited)
        count = workload.batch * workload.tokens
        rows_s = spans.get((STORAGE, "embeddings"), _LEAST_ROW_S * count)
        self._seen.rows.append(Sized(count, rows_s, waited))

    def _end(self, name: str, shot: Shot, seconds: float, waited: float) -> None:
        self._seen.ends.append(EndTime(name, shot.workload, seconds, waited))

    def _whole_runs(self) -> Callable[[], None]:
        """Time one run of each kind, and return what times the next one of them."""
        middle = self._plans.middle()
        jobs = self._jobs(middle)[: first_steps(middle, 1)]
        start = perf_counter()
        self._run(jobs, middle)
        layers = max(1, int(LONGEST_RUN_S / max(_LEAST_S, perf_counter() - start)))
        runs = [(plan, self._jobs(plan)) for plan in self._plans.whole_runs(self._choices, layers)]
        for plan, jobs in runs:  # threads are started, and sessions made, at first use
            self._run(jobs, plan)
        together = self._watch_threads()
        turns = cycle(runs)

        def once() -> None:
            plan, jobs = next(turns)
            start = perf_counter()
            for _ in range(MOST_REPEATS):
                self._time_run(jobs, plan, together)
                if not 0.0 <= perf_counter() - start < LEAST_RUNS_S:
                    return

        for _ in runs:
            once()
        return once

    def _watch_threads(self) -> Watch:
        """Watches the threads that the runner has started."""
        started = [each for each in threading.enumerate() if each not in self._before]
        readers = [each.native_id or 0 for each in started if each.name in READERS]
        workers = [each.native_id or 0 for each in started if each.name not in READERS]
        return Watch(workers, readers)

    def _time_run(self, jobs: Sequence[StepJob], plan: Plan, together: Watch) -> None:
        alone = plan.threads == SEQUENTIAL
        watch = self._alone if alone else together
        watch.start()
        start = perf_counter()
        trace, _ = self._run(jobs, plan)
        total_s = perf_counter() - start
        waited = watch.share(alone_s=_read_s(trace) if alone else None)
        names = plan.work_names
        busy_s = {
            lane: sum(span.duration_s for span in spans if span.name in names)
            for lane, spans in trace.lanes.items()
            if lane != LINK
        }
        if all(map(_is_time, (total_s, *busy_s.values()))):
            self._seen.runs.append(TimedRun(plan, total_s, by_work(busy_s), waited))

    def _run(self, jobs: Sequence[StepJob], plan: Plan) -> tuple[Trace, Sized]:
        """What a run did, and how long its texts took to tokenize."""
        start = perf_counter()
        given = self._start(plan.workload)
        taken_s = perf_counter() - start
        if callable(given):
            recorder = Recorder(perf_counter())
            stage = self._runner.run_stage(jobs, plan, given, last=True, recorder=recorder)
            return stage.trace, Sized(plan.workload.batch * plan.workload.tokens, taken_s)
        encodings = given
        outcome = self._runner.run(
            jobs,
            plan,
            encodings,
            mode="planned",
            recorder=Recorder(perf_counter()),
            adapt=Adapt(
                damaged=True
            ),  # what a run may answer with must not keep the machine from being measured
        )
        return outcome.trace, Sized(sum(len(each.ids) for each in encodings), taken_s)

    def _start(self, workload: Workload) -> list[Encoding] | Callable[[], HiddenStates]:
        """What a run of this size starts from."""
        if isinstance(self._samples, SampleParts):
            return self._samples.start(*workload)
        tokenizer = self._samples.tokenizer
        return [tokenizer.encode(text) for text in self._samples.texts(*workload)]

    def _jobs(self, plan: Plan) -> tuple[StepJob, ...]:
        return prepare(plan, self._manifest, self._reader.group_offset)


def take_turns(
    work: Mapping[str, Callable[[], None]], shares: Mapping[str, float], deadline: float
) -> None:
    """Do one thing after another until ``deadline`` (``perf_counter``), each for its share of time.

    Nothing begins that is likely to end after it.
    """
    spent, longest = dict.fromkeys(work, 0.0), dict.fromkeys(work, 0.0)
    for _ in range(_MOST_TURNS):
        start = perf_counter()
        fitting = [name for name in work if start + longest[name] < deadline]
        if not fitting:
            return
        name = min(fitting, key=lambda name: spent[name] / shares[name])
        work[name]()
        taken_s = perf_counter() - start
        spent[name] += max(_LEAST_S, taken_s)
        longest[name] = max(longest[name], min(taken_s, LONGEST_S))


def _is_time(seconds: float) -> bool:
    """Whether a clock that is right may have shown this."""
    return 0.0 < seconds <= LONGEST_S


def _read_s(trace: Trace) -> float:
    """Seconds in which a thread that does everything was reading."""
    return sum(span.duration_s for span in trace.lanes.get(STORAGE, ()))
