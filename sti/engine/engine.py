"""The face of the run time: open a pack, ask for answers within a target.

In: a pack's path, a target, texts. Out: ``Result``. Puts the parts together and decides only what
belongs to no other part: which workload bucket a batch falls into, which plan is current, and what
the preload buffer should hold for the next run (the last plan's leading blocks).
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
from types import TracebackType
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration.calibrate import best_threads
from sti.device.host import most_threads
from sti.device.lanes import COMPUTE
from sti.device.memory_limit import check_memory
from sti.device.profile import DeviceProfile
from sti.engine.answers import Label, TextSpan, reject
from sti.engine.inputs import Text, check_texts
from sti.engine.plan_store import PlanStore, PreparedPlan, ProfileSource
from sti.engine.results import Result, make_result
from sti.engine.targets import TargetSpec, resolve
from sti.errors import ClosedError, InputError, RunError, StiWarning
from sti.model.manifest import Manifest
from sti.pack.header import VOCABULARY
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Mode, Runner
from sti.pipeline.trace import PLAN, TOKENIZE, Recorder
from sti.planning.plan import Plan
from sti.storage.reader import Reader
from sti.text.encoding import Encoding
from sti.text.wordpiece import Tokenizer, TokenizerSpec

_STATE_BYTES = 8
"""A token's hidden state and token embedding, for each of its numbers."""
_SMALL_BYTES = 1 << 26
"""What a batch may take without a look at the memory that is free."""


class Engine:
    """A pack, open and ready to answer.

    Thread-safe: calls from several threads run one after another. Not for use in a forked child:
    open the engine there. Use as a context manager, or call ``close``.
    """

    def __init__(
        self,
        reader: PackReader,
        settings: TargetSpec,
        *,
        threads: int,
        verify: bool,
        profile: DeviceProfile | None,
        config: str | Path | None,
        storage: Reader | None,
    ) -> None:
        self._reader = reader
        self._config = config
        self._threads = threads
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._closed = False
        self._held: Plan | None = None
        backend = OrtBackend(reader, threads=threads)
        self._profiles = ProfileSource(reader, backend, threads=threads, given=profile)
        self._runner = Runner(reader, backend, verify=verify, storage=storage)
        self._forgotten = weakref.finalize(self, _end_forgotten, self._runner, reader.path)
        self._forgotten.atexit = False
        try:
            # First what lets the preload buffer fill while sessions and tokenizer are made.
            self._plans = self._aim(settings)
            backend.prepare()
            self._tokenizer = Tokenizer(
                TokenizerSpec.from_json(reader.manifest.tokenizer),
                reader.resident(VOCABULARY).tobytes(),
            )
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        latency: str | float | None = None,
        preload: str | int | None = None,
        fidelity: int | None = None,
        plan: Plan | str | Path | None = None,
        config: str | Path | None = None,
        target: str | None = None,
        threads: int | None = None,
        verify: bool = False,
        profile: DeviceProfile | None = None,
        storage: Reader | None = None,
    ) -> Engine:
        """Open a pack. Reads its header, resident tensors, graphs and tokenizer; no block yet.

        The preload buffer fills in the background; a run may start before it is full.

        Args:
            path: the pack.
            latency: what a run may take, text in to answer out: ``"200ms"`` or seconds. None:
                the best quality the pack has.
            preload: compressed bytes held between runs: ``"4MB"`` or bytes. None: none.
            fidelity: bits of every shard; instead of planning.
            plan: a plan to follow, or the file of one; instead of planning.
            config: the ``sti.toml`` that names targets.
            target: the name of a target in it; explicit arguments win over it.
            threads: compute threads; None: what suits this machine.
            verify: compare everything that is read with its checksum, and the embedding table at
            once
                (costs about 1 ns a byte); without it, a damaged pack may answer wrongly.
            profile: what this machine can do; None: the cached profile, measured if there is none.
            storage: what blocks and token embeddings are read from, closed with the engine once
            that is
                open; None: the pack's own file. Needs a ``profile`` of it
                (``sti.device.emulated_storage``).

        Raises:
            PackError: not a pack, of an unknown version, truncated or damaged.
            InputError, ConfigError: arguments that cannot be used.
            InfeasibleError: the target cannot be met; says which limit, and by how much.
        """
        settings = resolve(
            latency=latency,
            preload=preload,
            fidelity=fidelity,
            plan=plan,
            config=config,
            target=target,
        )
        if storage is not None and profile is None:
            raise InputError("storage of its own needs a profile that knows it")
        most = most_threads()
        if threads is not None and not (type(threads) is int and 1 <= threads <= most):
            raise InputError(f"threads must be a number from 1 to {most}; found {threads!r:.40}")
        reader = PackReader.open(Path(path))
        chosen = best_threads(reader) if threads is None else threads
        return cls(
            reader,
            settings,
            threads=chosen,
            verify=verify,
            profile=profile,
            config=config,
            storage=storage,
        )

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and give back memory and descriptors. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._forgotten.detach()
                self._runner.close()
                self._reader.close()

    @property
    def manifest(self) -> Manifest:
        """What the pack says about itself."""
        return self._reader.manifest

    @property
    def reader(self) -> PackReader:
        """The open pack; closed with the engine."""
        return self._reader

    @property
    def pack_id(self) -> str:
        """Names the pack; plans carry it."""
        return self._reader.pack_id

    @property
    def threads(self) -> int:
        """Compute threads."""
        return self._threads

    @property
    def direct(self) -> bool:
        """Whether blocks are read past the page cache."""
        return self._runner.direct

    @property
    def held_bytes(self) -> int:
        """Compressed bytes in the preload buffer now."""
        return self._runner.held_bytes

    @property
    def profile(self) -> DeviceProfile:
        """What this machine can do; measured and cached when first asked for."""
        with self._use():
            return self._profiles.get()

    def set_target(
        self,
        *,
        latency: str | float | None = None,
        preload: str | int | None = None,
        fidelity: int | None = None,
        plan: Plan | str | Path | None = None,
        target: str | None = None,
    ) -> None:
        """Aim at another target from the next run on. Replans; rebuilds nothing.

        What is not given is as in ``open`` without it, not as it was. Errors leave the engine as
        it was.
        """
        settings = resolve(
            latency=latency,
            preload=preload,
            fidelity=fidelity,
            plan=plan,
            config=self._config if target is not None else None,
            target=target,
        )
        with self._use():
            self._plans = self._aim(settings)

    def preloaded(self, timeout_s: float | None = None) -> bool:
        """Wait until the preload buffer is filled; False if it is not within ``timeout_s``."""
        return self._runner.wait_held(timeout_s)

    def plan_for(self, *, tokens: int, batch: int = 1) -> Plan:
        """The plan a batch of ``batch`` sentences of ``tokens`` tokens would run under.

        The first run of every bucket of lengths makes its plan, which takes some milliseconds off
        the target where the pack has many submodels; asking beforehand spares that run the wait.
        """
        if tokens < 2 or batch < 1:
            raise InputError("a workload has at least 1 sentence of at least 2 tokens")
        with self._use():
            return self._plans.plan_for(batch=batch, tokens=tokens)[0]

    def run(self, texts: Sequence[Text], *, mode: Mode = "pipelined") -> Result:
        """Answer a batch of texts (or of pairs, as tuples).

        Args:
            texts: at least one; none may be empty. Over-long ones are cut, with a warning.
            mode: ``"sequential"`` runs one lane after the other, with the same result to the bit.

        Returns:
            Embeddings or logits in the order of ``texts``, with timing and the plan as used.

        Raises:
            InputError: no texts, an empty text, or not a sequence of texts.
            InfeasibleError: the target cannot be met for this many tokens, or memory does not hold
                so many texts at once.
            StorageError, BackendError, PackCorruptError: storage or computation failed, or the pack
                is damaged; the engine stays usable.
            ClosedError: the engine was closed.
        """
        arrived = perf_counter()
        if mode not in get_args(Mode):
            raise InputError(f"mode must be one of {', '.join(get_args(Mode))}; found {mode!r:.40}")
        check_texts(texts, pairs=self.manifest.task != "tagging")
        with self._use():
            encodings = [self._tokenizer.encode_text(text) for text in texts]
            self._check_room(encodings)
            recorder = Recorder(arrived)
            tokenized = perf_counter()
            recorder.add(COMPUTE, TOKENIZE, arrived, tokenized)
            mean = -(-sum(len(item.ids) for item in encodings) // len(encodings))
            planned = self._plans.plan_for(batch=len(texts), tokens=mean)
            recorder.add(COMPUTE, PLAN, tokenized, perf_counter())
            plan, jobs = planned
            outcome = self._runner.run(jobs, plan, encodings, mode=mode, recorder=recorder)
            result = make_result(
                self.manifest,
                texts,
                encodings,
                outcome.outputs,
                plan=plan,
                trace=outcome.trace,
                bytes_read=outcome.bytes_read,
                total_s=perf_counter() - arrived,
            )
            self._hold(planned)
        if result.truncated:
            warnings.warn(
                f"{result.truncated} of {len(texts)} texts were cut to "
                f"{self.manifest.dimensions.max_tokens} tokens, the most this model takes",
                StiWarning,
                stacklevel=2,
            )
        return result

    def embed(self, texts: Sequence[Text]) -> NDArray[np.float32]:
        """Sentence embeddings, float32 ``[n, hidden]``; a new array."""
        self._need("embedding")
        found = self.run(texts).embeddings
        assert found is not None
        return found

    def classify(self, texts: Sequence[Text]) -> list[list[Label]]:
        """For each text its labels, best first (for a regression, its values).

        The first label is the answer. For a text out of scope it is ``manifest.rejection.label``,
        so that who acts on the first label does not act on a guess; its score is what the best
        class leaves over (1 - that one's score), and all classes follow as they are. ``run`` keeps
        the two apart: the classes in ``Result.labels``, the decision in ``Result.accepted``.
        """
        self._need("classification", "regression")
        result, rejection = self.run(texts), self.manifest.rejection
        rows = [[item for item in row if isinstance(item, Label)] for row in result.labels or ()]
        if rejection is None or result.accepted is None:
            return rows
        return reject(rows, result.accepted, rejection.label)

    def tag(self, texts: Sequence[str]) -> list[list[TextSpan]]:
        """For each text its labelled spans, in order."""
        self._need("tagging")
        return [
            [item for item in row if isinstance(item, TextSpan)]
            for row in self.run(texts).labels or ()
        ]

    @contextmanager
    def _use(self) -> Iterator[None]:
        """One call at a time, on an open engine, in the process that opened it."""
        if os.getpid() != self._process:
            raise RunError(
                f"{self._reader.path}: the engine was opened in another process, and its threads "
                "stayed there; open the engine in the process that uses it"
            )
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._reader.path}: the engine was closed; open it again")
            yield

    def _check_room(self, encodings: Sequence[Encoding]) -> None:
        """Refuse a batch whose hidden states would not fit into memory."""
        tokens = sum(len(item.ids) for item in encodings)
        needed = tokens * self.manifest.dimensions.hidden * _STATE_BYTES
        if needed > _SMALL_BYTES:
            what = f"{len(encodings)} texts of {tokens} tokens take at once"
            check_memory(needed, what=what, remedy="give fewer at a time", limit="memory")

    def _need(self, *tasks: str) -> None:
        if self.manifest.task not in tasks:
            raise InputError(
                f"{self._reader.path}: this pack is for {self.manifest.task}, not for "
                f"{' or '.join(tasks)}"
            )

    def _aim(self, settings: TargetSpec) -> PlanStore:
        """Plans for ``settings``, the preload buffer following them."""
        plans = PlanStore(
            self._reader,
            settings,
            threads=self._threads,
            profiles=self._profiles,
        )
        self._hold(plans.opening())
        return plans

    def _hold(self, planned: PreparedPlan) -> None:
        """Let the preload buffer follow the plan, if that changes anything."""
        plan, jobs = planned
        wanted = plan.target.preload_bytes or self._held is not None
        if wanted and (plan is not self._held or self._runner.hold_failed):
            self._held = plan
            self._runner.hold(jobs, plan)


def _end_forgotten(runner: Runner, path: Path) -> None:
    """End an engine that was dropped without being closed."""
    warnings.warn(f"{path}: an engine was not closed", ResourceWarning, stacklevel=2)
    runner.close()
