"""The public API of the run time: open a pack, ask for answers within a target.

In: a pack's path, a target, texts. Out: plans, ``Result``, or plain answers. The public surface
only, of which opening and closing is in ``open_engine``; ``core`` does the work.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sti.arrays import Float32Array
from sti.engine.answers import Label, TextSpan, Value
from sti.engine.batches import Batches
from sti.engine.health import Health
from sti.engine.inputs import check_task, check_threshold
from sti.engine.open_engine import OpenEngine
from sti.engine.options import EngineOptions
from sti.engine.prompts import chosen_prompt
from sti.engine.result_warnings import warnings_of
from sti.engine.results import Result
from sti.engine.targets import TargetSpec, resolve
from sti.errors import InputError, StiWarning
from sti.model.manifest import MULTI_LABEL
from sti.pack.pack_reader import PackReader
from sti.pipeline.runner import Mode
from sti.planning.plan import Plan
from sti.text.encoding import Encoding, Text

if TYPE_CHECKING:
    from datetime import timedelta

    from sti.engine.conditions import PlannedPlan
    from sti.planning.strategies import Strategy


class Engine(OpenEngine):
    """A pack, open and ready to answer.

    Thread-safe: calls from several threads run one after another; with asyncio,
    ``asyncio.to_thread(engine.run, texts)``. Use as a context manager, or call ``close``.

    In a forked child all calls raise ``RunError`` but ``close``: open the engine there, or in a
    process that was spawned. When Python ends, engines that are open are closed: a run in a daemon
    thread stops at its next step with ``ClosedError``. No signal handlers are installed; what a
    handler raises amid a run is raised when its threads have stopped, and the engine stays usable.
    In a handler amid the thread's own call, ``close`` and ``release`` take effect as that call
    ends, and other calls raise ``RunError``.

    Args:
        reader: the open pack; the engine closes it.
        target: what to aim at.
        options: everything else (``open`` describes it).
    """

    def __init__(self, reader: PackReader, target: TargetSpec, options: EngineOptions) -> None:
        super().__init__(reader, target, options)
        self._batches = Batches(self._core)

    def set_target(
        self,
        target: TargetSpec | str | None = None,
        *,
        latency: str | timedelta | None = None,
        memory: str | None = None,
        preload: str | None = None,
        quantile: str | None = None,
        floor: str | None = None,
        fidelity: int | None = None,
        plan: Plan | str | Path | None = None,
    ) -> None:
        """Aim at another target from the next run on. Replans; rebuilds nothing.

        Arguments not given fall back to the defaults of ``open``, not to the previous target; a
        name is looked up in the ``config`` given there. Errors leave the engine as it was.
        """
        config = self._core.options.config if isinstance(target, str) else None
        given = TargetSpec(
            latency=latency,
            memory=memory,
            preload=preload,
            quantile=quantile,
            floor=floor,
            fidelity=fidelity,
            plan=plan,
        )
        self._core.set_target(resolve(target, given, config=config))

    def plan_for(self, *, tokens: int, batch: int = 1) -> Plan:
        """The plan a batch of ``batch`` sentences of ``tokens`` tokens would run under.

        Later runs may be under another one, as the machine changes.
        """
        _check_workload(tokens, batch)
        return self._core.use(lambda: self._core.plans.plan_for(batch=batch, tokens=tokens)[0])

    def planned(
        self, *, tokens: int, batch: int = 1, target: TargetSpec | None = None
    ) -> PlannedPlan:
        """As ``plan_for``, always with a prediction, and with the conditions that it comes from.

        Args:
            target: what to plan for instead of the engine's target, which stays: the plan that an
                engine has that is opened with this one.

        Raises:
            InfeasibleError, PlanError, InputError: as ``open``; the machine is not measured again
                before ``target`` is refused.
            ProfileError: a pinned plan's threads were not measured on this machine.
        """
        _check_workload(tokens, batch)
        return self._core.use(
            lambda: self._core.plans.planned(batch=batch, tokens=tokens, target=target)
        )

    def strategies(self, *, tokens: int, batch: int = 1) -> tuple[list[Strategy], Strategy]:
        """How such a batch could be computed: by this machine alone, which is the first, or by
        chains of devices, the best first; and the one that is taken.

        Raises:
            InputError: the engine was opened without devices.
            InfeasibleError: as ``plan_for``.
        """
        _check_workload(tokens, batch)
        return self._core.use(lambda: self._core.strategies(batch=batch, tokens=tokens))

    def set_strategy(self, strategy: str) -> None:
        """Who computes from the next run on: ``auto``, ``local`` or ``chain``, as of
        ``DeviceOptions``.

        Raises:
            InputError: another word, or the engine was opened without devices.
        """
        self._core.use(lambda: self._core.set_strategy(strategy))

    def health(self) -> Health:
        """How runs have kept the target since the engine was opened or aimed at another one."""
        return self._core.health()

    def tokenize(
        self, texts: Sequence[Text], *, prompt: str | None = None, prompt_name: str | None = None
    ) -> list[Encoding]:
        """The tokens of each text, as a run sees them; ``truncated`` tells which were cut.

        Raises:
            InputError: as ``run``.
        """
        return self._core.tokenize(texts, self._prompt(prompt, prompt_name))

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        return chosen_prompt(self.manifest, prompt=prompt, name=name)

    def run(
        self,
        texts: Sequence[Text],
        *,
        mode: Mode = "planned",
        prompt: str | None = None,
        prompt_name: str | None = None,
        threshold: float | None = None,
    ) -> Result:
        """Answer texts (or pairs, as tuples) together.

        A latency holds for each answer: several texts are answered in as many batches as that takes
        (as ``stream`` cuts them), each in time and none at the expense of quality. The result has a
        part for each batch (``Result.parts``). Without a latency all texts are one batch.

        Args:
            texts: at least one; none may be empty. Texts that are too long are cut, with a warning.
            mode: ``"sequential"`` runs one lane after the other, with the same result to the bit.
            prompt: put in front of each text, or of the first of each pair; an empty one for none.
            prompt_name: that of one of the pack's (``manifest.prompts``). Without either the pack's
                default is put there, if it has one.
            threshold: the least score of a label that holds, from 0 to 1, where several may
                (default: 0.5).

        Where a plane above the lowest is damaged, the run answers at the fidelity below, warns, and
        says so in the result (not with ``strict``, nor for comparable embeddings). Planes that
        would come too late for the latency are left out in the same way, without a warning
        (``adapt``).

        For a caller who comes back at once, plans of next runs are made before this returns, in
        what is left of the latency: at most a few milliseconds, which are not part of the timing.

        Returns:
            The answers in the order of ``texts``, with timing and the plan as used.

        Raises:
            InputError: no texts, an empty text, or not a sequence of texts; a prompt that the pack
                does not have, or that leaves no room for a text; a threshold beyond 0 and 1, or
                for labels that exclude one another.
            InfeasibleError: the target cannot be met for a text of so many tokens, or memory does
                not hold so many texts at once.
            StorageError, BackendError, PackCorruptError: storage or computation failed, or the pack
                is damaged or was changed since it was opened; the engine stays usable.
            ClosedError: the engine was closed.
        """
        _check_mode(mode)
        return self._answer(texts, mode, self._prompt(prompt, prompt_name), threshold)

    def stream(
        self,
        texts: Iterable[Text],
        *,
        mode: Mode = "planned",
        prompt: str | None = None,
        prompt_name: str | None = None,
        threshold: float | None = None,
    ) -> Iterator[Result]:
        """Answer texts (or pairs) as they come, in batches, in bounded memory.

        A batch is a few neighbouring texts. With a latency it is as many as are answered within it,
        from when the batch begins, without losing quality over a text alone; often that is one.
        Without a latency it is up to 32. A batch begins when its texts are there, so texts that
        come slowly are better given to ``run`` one by one.

        Args:
            texts: any iterable; no more is taken from it than the next batch needs.
            mode, prompt, prompt_name, threshold: as for ``run``.

        Returns:
            An iterator over the results of the batches, in order: ``Result.texts`` are the texts
            that each answers. Other calls, and other targets, may come between two of them. What
            is to be warned of (as by ``run``) is so once, at the line that takes the result.

        Raises:
            InputError: ``texts`` is no iterable of texts.
            StiError: as ``run``, from the iterator, when the texts before were answered. So is
                what ``texts`` raises. The iterator has ended then; the engine stays usable.
        """
        _check_mode(mode)
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise InputError(f"texts must be an iterable of texts; found {texts!r:.60}")
        check_threshold(self.manifest.task, threshold)
        return self._streamed(texts, mode, self._prompt(prompt, prompt_name), threshold)

    def _streamed(
        self, texts: Iterable[Text], mode: Mode, prompt: str, threshold: float | None
    ) -> Iterator[Result]:
        told: set[str] = set()
        for result in self._batches.results(texts, mode, prompt):
            for kind, warning in self._warnings(result):
                if kind not in told:
                    told.add(kind)
                    warnings.warn(warning, StiWarning, stacklevel=2)
            yield result if threshold is None else result.at(threshold)

    def _answer(
        self, texts: Sequence[Text], mode: Mode, prompt: str, threshold: float | None = None
    ) -> Result:
        """Run, and warn of damage and of texts that were cut, at the line that called."""
        check_threshold(self.manifest.task, threshold)
        result = self._batches.run(texts, mode, prompt)
        for _, warning in self._warnings(result):
            warnings.warn(warning, StiWarning, stacklevel=3)
        return result if threshold is None else result.at(threshold)

    def _warnings(self, result: Result) -> Iterator[tuple[str, str]]:
        return warnings_of(result, path=self._core.reader.path, max_tokens=self.max_tokens)

    def embed(
        self, texts: Sequence[Text], *, prompt: str | None = None, prompt_name: str | None = None
    ) -> Float32Array:
        """Sentence embeddings, float32 ``[n, dimension]``; a new array. Prompts as for ``run``."""
        check_task(self._core.reader.path, self.task, "embed")
        return self._answer(texts, "planned", self._prompt(prompt, prompt_name)).embeddings

    def classify(
        self,
        texts: Sequence[Text],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        threshold: float | None = None,
    ) -> list[list[Label]]:
        """For each text its classes, best first.

        The first one is the answer. For a text out of scope it is ``manifest.rejection.label``,
        so that code that acts on the first one does not act on a guess; its score is 1 minus
        that of the best class, and all classes follow as they are. ``run`` keeps
        the two apart: the classes in ``Result.classes``, the decision in ``Result.accepted``.

        Where several labels may hold, those that score at least ``threshold``, which may be none.
        Prompts as for ``run``.
        """
        check_task(self._core.reader.path, self.task, "classify")
        chosen = self._prompt(prompt, prompt_name)
        result = self._answer(texts, "planned", chosen, threshold)
        found = result.labels if self.task == MULTI_LABEL else result.decisions
        return [list(row) for row in found]

    def regress(
        self, texts: Sequence[Text], *, prompt: str | None = None, prompt_name: str | None = None
    ) -> list[list[Value]]:
        """For each text the values a regression predicts, in the order of ``labels``.

        Prompts as for ``run``.
        """
        check_task(self._core.reader.path, self.task, "regress")
        chosen = self._prompt(prompt, prompt_name)
        return [list(row) for row in self._answer(texts, "planned", chosen).values]

    def tag(self, texts: Sequence[str]) -> list[list[TextSpan]]:
        """For each text its labelled spans, in order."""
        check_task(self._core.reader.path, self.task, "tag")
        return [list(row) for row in self._answer(texts, "planned", "").spans]


def _check_workload(tokens: int, batch: int) -> None:
    if tokens < 2 or batch < 1:
        raise InputError("a workload has at least 1 sentence of at least 2 tokens")


def _check_mode(mode: Mode) -> None:
    if mode not in get_args(Mode):
        raise InputError(f"mode must be one of {', '.join(get_args(Mode))}; found {mode!r:.40}")
