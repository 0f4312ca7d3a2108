"""What a pack's plans are worth on labelled data, beside the baselines under the same limits.

In: a pack with a measured quality, a data file, targets and preloads, a machine (this one, or a
device file). Out: an ``Evaluation``. Accuracy is always measured, by running the data through the
engine's own graphs under each plan; latency is measured on this machine, and simulated for another.
Paper, section "Evaluation". Knows nothing of tables and plots.

Every cell is planned for one text a run, of as many tokens as the bucket that the data's median
falls into, and timed with texts of that bucket; the accuracy is that of all texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median_high

import numpy as np

from shard_tools.checkpoint.elastic import middle, smallest
from shard_tools.data.rows import read_rows, targets_of
from shard_tools.evaluation.baselines import Baseline, Baselines, Contender, memory_bytes, planned
from shard_tools.evaluation.cells import (
    Cell,
    Comparison,
    Entry,
    Evaluation,
    Forecast,
    Scope,
    forecast,
)
from shard_tools.evaluation.timing import Latency, draw, measure, simulated, token_counts
from shard_tools.measuring.forward import Batches, Forward, Precision, precision_of
from shard_tools.measuring.judge import confidence
from shard_tools.measuring.metrics import Score, Scorer
from shard_tools.progress import Progress
from sti.arrays import Float64Array
from sti.device.host import check_threads, core_count
from sti.device.profile import DeviceProfile
from sti.engine.engine import Engine
from sti.errors import InfeasibleError, InputError
from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.model.workload import Workload, bucket
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Target
from sti.planning.planner import make_plan
from sti.planning.prediction import mean_bits
from sti.planning.uniform import uniform_plan
from sti.text.encoding import Text

_ACCEPTED = 0.95
"""Share of texts in scope at which classifiers' recall out of scope is usually compared."""
_RUN_SHARE = 0.02
"""What a timed run weighs in the progress, against a pass over the data."""

Key = tuple[object, ...]
"""What is executed, and how: contenders with equal keys are timed once."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What to evaluate."""

    targets_s: tuple[float, ...]
    preloads_bytes: tuple[int, ...] = (0,)
    device: str | None = None
    """A device file or its name; None: this machine."""
    out_of_scope: Path | None = None
    """Texts that the pack should tell to be none of its business."""
    tokens: int | None = None
    """Of the workload; None: the data's median. Rounded up to its bucket."""
    runs: int = 20
    """Timed runs of everything, on this machine."""
    seed: int = 0
    threads: int | None = None
    """Compute threads of the engine; None: what suits this machine."""


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell before anything has run."""

    target: Target
    plan: Contender | None
    needed_s: float | None
    baselines: tuple[Baseline, ...]

    @property
    def contenders(self) -> list[Contender]:
        """Everything there is to run."""
        found = (self.plan, *(item.best for item in self.baselines))
        return [item for item in found if item is not None]


@dataclass(frozen=True, slots=True)
class _Answers:
    """What one setting answered."""

    score: Score
    confidence: tuple[Float64Array, Float64Array] | None
    """How sure it was of each text of the data and of each out of scope; None without the latter.

    The pack's thresholds are for these.
    """


@dataclass(frozen=True, slots=True)
class _Findings:
    """What was measured of everything that was run, and how it becomes cells."""

    manifest: Manifest
    answers: Mapping[Precision, _Answers]
    latencies: Mapping[Key, Latency]

    def score(self, contender: Contender) -> Score:
        return self.answers[precision_of(contender.plan, self.manifest)].score

    def scope(self, contender: Contender) -> Scope | None:
        found = self.answers[precision_of(contender.plan, self.manifest)].confidence
        rejection = self.manifest.rejection
        if found is None or rejection is None:
            return None
        (sure, strange), least = found, rejection.threshold(contender.loss)
        own = np.quantile(sure, 1.0 - _ACCEPTED)
        return Scope(
            accepted=float((sure >= least).mean()),
            recalled=float((strange < least).mean()),
            recalled_at_95=float((strange < own).mean()),
        )

    def entry(self, name: str, contender: Contender) -> Entry:
        return Entry(
            name=name,
            depth=contender.plan.depth,
            width=contender.plan.width,
            bits=mean_bits(self.manifest, contender.plan),
            expected=contender.quality,
            measured=self.score(contender).value,
            latency=self.latencies[_key(contender)],
            bytes_read=contender.bytes_read,
            memory_bytes=memory_bytes(self.manifest, contender),
            scope=self.scope(contender),
        )

    def cell(self, task: PlannedCell) -> Cell:
        assert task.target.latency_s is not None
        return Cell(
            latency_s=task.target.latency_s,
            preload_bytes=task.target.preload_bytes,
            plan=None if task.plan is None else self.entry("plan", task.plan),
            needed_s=task.needed_s,
            baselines=tuple(self._compared(item, task.plan) for item in task.baselines),
        )

    def _compared(self, baseline: Baseline, plan: Contender | None) -> Comparison:
        entry = ahead = error = None
        if baseline.best is not None:
            entry = self.entry(baseline.name, baseline.best)
            if plan is not None:
                ahead, error = self.score(plan).ahead(self.score(baseline.best))
        return Comparison(baseline.name, baseline.in_paper, entry, baseline.why_not, ahead, error)

    def forecast_of(self, contenders: Iterable[Contender]) -> Forecast | None:
        distinct = {precision_of(item.plan, self.manifest): item for item in contenders}
        return forecast(
            (item.quality, self.answers[setting].score.value) for setting, item in distinct.items()
        )


def evaluate(
    path: Path, data: Path, options: EvaluateOptions, *, progress: bool | None = None
) -> Evaluation:
    """Plan all cells, run everything in them, and compare.

    Args:
        path: the pack.
        data: labelled texts (``shard_tools.data.rows``).
        progress: False keeps quiet; None shows a line on a terminal only.

    Raises:
        InputError: the pack's quality was never measured, the data has malformed rows or labels
            the pack does not know, or the options cannot be used.
        PackError: not a pack, or a damaged one.
        ProfileError: the device file cannot be used.
    """
    _check(options)
    with PackReader.open(path) as reader:
        manifest, quality = reader.manifest, _quality(reader)
        texts, labels = load_data(data, manifest)
        out_of_scope = _out_of_scope(path, manifest, options)
        profile = _profile(path, manifest, options)
        tokens, timed_texts = _workload(reader, texts, options)
        tasks = _tasks(reader, profile, Workload(1, tokens), options)
        uniform = _uniform(reader, profile, Workload(1, tokens))
        full = uniform[-1]
        contenders = [full, *(item for task in tasks for item in task.contenders)]
        scored = (*contenders, *uniform)
        settings = list(dict.fromkeys(precision_of(item.plan, manifest) for item in scored))
        timed = {_key(item): item for item in contenders}
        real = {key: item for key, item in timed.items() if item.mode != "layerwise"}
        rounds = len(timed_texts) + 1 if timed_texts else 0
        with Progress(len(settings) + _RUN_SHARE * rounds * len(real), shown=progress) as line:
            scorer = Scorer(quality.metric, labels, seed=options.seed)
            with Forward(reader, threads=options.threads or core_count()) as forward:
                batches = forward.batches(texts)
                strange = forward.batches(out_of_scope) if out_of_scope else None
                answers = {}
                for setting in settings:
                    answers[setting] = _answers(forward, setting, batches, strange, scorer)
                    line.step(1.0, "measuring accuracy")
            latencies = {_key(item): simulated(item, profile) for item in scored}
            if timed_texts:
                found = measure(
                    path,
                    list(real.values()),
                    timed_texts,
                    profile=profile,
                    seed=options.seed,
                    step=lambda: line.step(_RUN_SHARE, "measuring latency"),
                )
                latencies |= dict(zip(real, found, strict=True))
    findings = _Findings(manifest, answers, latencies)
    plans = [task.plan for task in tasks if task.plan is not None]
    return Evaluation(
        pack=manifest.name,
        pack_id=full.plan.pack,
        data=data.name,
        metric=quality.metric,
        examples=len(texts),
        truncated=batches.truncated,
        tokens=tokens,
        device=profile.device,
        jitter=profile.jitter,
        runs=len(timed_texts),
        seed=options.seed,
        full=findings.entry("full model", full),
        cells=tuple(findings.cell(task) for task in tasks),
        uniform=tuple(findings.entry("uniform", item) for item in uniform),
        forecast_plans=findings.forecast_of(plans),
        forecast_all=findings.forecast_of(contenders),
    )


def load_data(path: Path, manifest: Manifest) -> tuple[list[Text], list[float]]:
    """Texts and labels of a data file: class numbers, or a regression's values.

    Raises:
        InputError: the file cannot be used with this pack; names the file and the line.
    """
    regression = manifest.task == "regression"
    rows = read_rows(path, "regression" if regression else None)
    labels = () if regression else manifest.labels
    return [row.text for row in rows], targets_of(rows, labels, path)


def _answers(
    forward: Forward, setting: Precision, batches: Batches, strange: Batches | None, scorer: Scorer
) -> _Answers:
    logits = forward.logits(batches, setting)
    score, rejection = scorer.score(logits), forward.manifest.rejection
    if strange is None or rejection is None:
        return _Answers(score, None)
    both = (logits, forward.logits(strange, setting))
    sure, unsure = (confidence(answers, rejection.temperature) for answers in both)
    return _Answers(score, (sure, unsure))


def _out_of_scope(path: Path, manifest: Manifest, options: EvaluateOptions) -> list[Text]:
    """Texts out of scope, if any; what label they have does not matter."""
    if options.out_of_scope is None:
        return []
    if manifest.rejection is None:
        raise InputError(
            f"{path}: has no thresholds for texts out of scope; rank it with --out-of-scope first"
        )
    return [row.text for row in read_rows(options.out_of_scope, labelled=False)]


def _check(options: EvaluateOptions) -> None:
    if options.runs < 1:
        raise InputError(f"--runs must be at least 1; found {options.runs}")
    check_threads(options.threads, name="--threads")
    if options.seed < 0:
        raise InputError(f"--seed must be at least 0; found {options.seed}")
    if options.tokens is not None and options.tokens < 2:
        raise InputError(f"--tokens must be at least 2; found {options.tokens}")


def _quality(reader: PackReader) -> Quality:
    task = reader.manifest.task
    if task not in ("classification", "regression"):
        raise InputError(
            f"{reader.path}: is a pack for {task}; only classification and regression packs can "
            "be evaluated on labels"
        )
    if reader.manifest.quality is None:
        raise InputError(
            f"{reader.path}: its quality was never measured, so plans cannot predict theirs; rank "
            "it first: sti-shard rank PACK --data CALIBRATION"
        )
    return reader.manifest.quality


def _profile(path: Path, manifest: Manifest, options: EvaluateOptions) -> DeviceProfile:
    """The device asked for, or this machine, measured if need be."""
    if options.device is not None:
        from sti.device.device_files import load_device

        return load_device(options.device, manifest)
    with Engine.open(path, threads=options.threads) as engine:
        return engine.profile


def _workload(
    reader: PackReader, texts: Sequence[Text], options: EvaluateOptions
) -> tuple[int, list[Text]]:
    """Tokens of the workload, and the texts that are timed: none where time is simulated."""
    counts, most = token_counts(reader, texts), reader.manifest.dimensions.max_tokens
    tokens = bucket(1, options.tokens or median_high(counts), most=most).tokens
    if options.device is not None:
        return tokens, []
    fitting = [
        text
        for text, count in zip(texts, counts, strict=True)
        if bucket(1, count, most=most).tokens == tokens
    ]
    if not fitting:
        raise InputError(
            f"no text of the data falls into the workload of {tokens} tokens; leave --tokens out, "
            "or simulate with --device"
        )
    return tokens, draw(fitting, options.runs, seed=options.seed)


def _tasks(
    reader: PackReader, profile: DeviceProfile, workload: Workload, options: EvaluateOptions
) -> list[PlannedCell]:
    baselines = Baselines(reader.manifest, reader.pack_id, profile, workload)
    tasks = []
    for latency_s, preload in product(options.targets_s, options.preloads_bytes):
        target = Target(latency_s, preload)
        plan, needed_s = None, None
        try:
            found = make_plan(reader.manifest, reader.pack_id, profile, workload, target)
            plan = planned(found)
        except InfeasibleError as error:
            needed_s = error.needed
        tasks.append(PlannedCell(target, plan, needed_s, baselines.under(target)))
    return tasks


def _uniform(reader: PackReader, profile: DeviceProfile, workload: Workload) -> list[Contender]:
    """Some submodels at every fidelity, whatever they take; everything the pack has comes last."""
    manifest = reader.manifest
    layers, slices = manifest.dimensions.layers, manifest.dimensions.slices
    found = []
    shown = (smallest(layers, slices), middle(layers, slices), (layers, slices))
    for sizes in dict.fromkeys(shown):
        if sizes not in {(item.depth, item.width) for item in manifest.submodels}:
            continue
        depth, width = sizes
        for bits in manifest.ladder:
            plan = uniform_plan(
                manifest,
                reader.pack_id,
                workload,
                bits=bits,
                profile=profile,
                depth=depth,
                width=width,
            )
            found.append(planned(plan))
    return found


def _key(contender: Contender) -> Key:
    plan = contender.plan
    return plan.steps, plan.decode_threads, plan.read_ahead, contender.mode
