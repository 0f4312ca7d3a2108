"""The parts of an engine, and the lock that serialises calls.

In: an open pack, a target, options, texts. Out: ``Result``. Owns the back end, the lanes, the plans
and the tokenizer, from opening to closing. Texts are checked in ``inputs``, plans chosen and held
in ``plan_store``, answers made in ``answers``; what runs is in ``sti.pipeline``.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration.calibrate import best_threads
from sti.device.lanes import COMPUTE
from sti.engine.inputs import Batch, check_room, check_texts
from sti.engine.options import EngineOptions
from sti.engine.plan_store import CurrentPlans, ProfileSource
from sti.engine.results import Result, make_result
from sti.engine.targets import TargetSpec
from sti.errors import ClosedError, PackCorruptError, RunError
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pipeline.runner import Mode, Runner
from sti.pipeline.trace import PLAN, TOKENIZE, Recorder
from sti.text.encoding import Encoding, Text


class EngineCore:
    """The parts of one engine. Thread-safe where ``use`` says so; not usable in a forked child.

    Args:
        reader: the open pack; closed with the core.
        target: what to aim at.
        options: how to run.

    Raises:
        InfeasibleError: the target cannot be met; says which limit, and by how much.
        PackError, PlanError: the pack or a pinned plan cannot be used.
    """

    def __init__(self, reader: PackReader, target: TargetSpec, options: EngineOptions) -> None:
        self.reader, self.options = reader, options
        if options.verify:
            from sti.pack.verify import verify_content  # rarely asked for

            verify_content(reader)
        self._adapt = options.may_adapt(reader.manifest.task)
        self.threads = options.threads or best_threads(reader)
        """Compute threads."""
        self.closed = False
        self._untold: list[str] = []
        self._lock = threading.RLock()
        self._process = os.getpid()
        backend = OrtBackend(reader, lanes=self.threads)
        self.profiles = ProfileSource(reader, backend, options, threads=self.threads)
        self.runner = Runner(reader, backend, check=options.check, storage=options.storage)
        self._forgotten = weakref.finalize(self, _end_forgotten, self.runner, reader.path)
        self._forgotten.atexit = False
        self.plans = CurrentPlans(reader, self.profiles, self.runner)
        try:
            # First what lets the preload buffer fill while sessions and tokenizer are made.
            opening = self.plans.aim(target)
            backend.prepare({step.variant for step in opening.steps})
            self._tokenizer = pack_tokenizer(reader)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the threads and give back memory and descriptors. Idempotent, thread-safe."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self._forgotten.detach()
                self.runner.close()
                self.reader.close()

    @contextmanager
    def use(self) -> Iterator[None]:
        """One call at a time, on an open engine, in the process that opened it.

        Raises:
            ClosedError, RunError: it was closed, or opened in another process.
        """
        if os.getpid() != self._process:
            raise RunError(
                f"{self.reader.path}: the engine was opened in another process, and its threads "
                "stayed there; open the engine in the process that uses it"
            )
        with self._lock:
            if self.closed:
                raise ClosedError(f"{self.reader.path}: the engine was closed; open it again")
            yield

    def tokenize(self, texts: Sequence[Text]) -> list[Encoding]:
        """Check and encode texts; ``Engine.tokenize`` says what is raised."""
        check_texts(texts, pairs=self.reader.manifest.task != "tagging")
        with self.use():
            return [self._tokenizer.encode_text(text) for text in texts]

    def run(self, texts: Sequence[Text], mode: Mode) -> Result:
        """Plan for the texts, run them, and let the preload buffer follow; as ``Engine.run``."""
        arrived = perf_counter()
        manifest = self.reader.manifest
        with self.use():
            batch = Batch(texts, self.tokenize(texts))
            check_room(batch, manifest.dimensions.hidden)
            recorder = Recorder(arrived)
            tokenized = perf_counter()
            recorder.add(COMPUTE, TOKENIZE, arrived, tokenized)
            prepared = self.plans.plan_for(batch=len(texts), tokens=batch.mean_tokens)
            recorder.add(COMPUTE, PLAN, tokenized, perf_counter())
            plan, jobs = prepared
            with self._watching() as notices:
                outcome = self.runner.run(
                    jobs, plan, batch.encodings, mode=mode, recorder=recorder, adapt=self._adapt
                )
            total_s = perf_counter() - arrived
            result = make_result(
                manifest, batch, plan, outcome, total_s=total_s, notices=tuple(notices)
            )
            notices.clear()
            self.plans.hold(prepared)
        return result

    @contextmanager
    def _watching(self) -> Iterator[list[str]]:
        """Refuse a file that is changed before or during a run; tell of one that is replaced.

        What a run that fails had to tell is told by the next one.
        """

        def look() -> None:
            notice = self.reader.check_unchanged()
            if notice is not None:
                self._untold.append(notice)

        look()
        try:
            yield self._untold
        except PackCorruptError:
            look()  # what was changed looks damaged, and has another remedy
            raise
        look()


def _end_forgotten(runner: Runner, path: Path) -> None:
    """End an engine that was dropped without being closed."""
    warnings.warn(f"{path}: an engine was not closed", ResourceWarning, stacklevel=2)
    runner.close()
