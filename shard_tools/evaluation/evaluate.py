"""How good a pack's plans are on labelled data, compared with baselines under the same limits.

In: a pack with a measured quality, a data file, targets and preloads, a machine (this one, or a
device file). Out: an ``Evaluation``. Accuracy is always measured, by running the data through the
engine's own graphs under each plan; latency is measured on this machine, and simulated for another.
Paper, section "Evaluation". Knows nothing of tables and plots.

Every cell is planned for one text a run, of as many tokens as the bucket that the data's median
falls into, and timed with texts of that bucket; the accuracy is that of all texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shard_tools.evaluation.answers import measure_answers
from shard_tools.evaluation.cells import Evaluation
from shard_tools.evaluation.evaluation_data import load_data, texts_by_length
from shard_tools.evaluation.findings import Findings
from shard_tools.evaluation.planned_evaluation import plan_evaluation
from shard_tools.evaluation.timing import draw, measure, simulated
from shard_tools.measuring.forward import Forward
from shard_tools.measuring.metrics import Scorer
from shard_tools.progress import Progress
from sti.device.host import check_threads, core_count
from sti.device.profile import DeviceProfile
from sti.engine.engine import Engine
from sti.errors import InputError
from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.text.encoding import Text

_RUN_SHARE = 0.02
"""What a timed run weighs in the progress, against a pass over the data."""


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """What to evaluate."""

    targets_s: tuple[float, ...]
    preloads_bytes: tuple[int, ...] = (0,)
    device: str | None = None
    """A device file or its name; None: this machine."""
    out_of_scope: Path | None = None
    """Texts that the pack should reject."""
    tokens: int | None = None
    """Of the workload; None: the data's median. Rounded up to its bucket."""
    runs: int = 20
    """Timed runs of everything, on this machine."""
    seed: int = 0
    threads: int | None = None
    """Compute threads of the engine; None: what suits this machine."""


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
    with PackReader.open_whole(path) as reader:
        quality, found = _quality(reader), load_data(data, options.out_of_scope, reader)
        profile = _profile(path, reader.manifest, options)
        tokens, fitting = texts_by_length(reader, found.texts, options.tokens)
        timed_texts = _timed_texts(fitting, tokens, options)
        limits = options.targets_s, options.preloads_bytes
        planned = plan_evaluation(reader, profile, Workload(1, tokens), *limits)
        timed = planned.timed if timed_texts else ()
        precisions = planned.precisions(reader.manifest)
        work = len(precisions) + _RUN_SHARE * (len(timed_texts) + 1) * len(timed)
        with Progress(work, shown=progress) as line:
            scorer = Scorer(quality.metric, found.labels, seed=options.seed)
            with Forward(reader, threads=options.threads or core_count()) as forward:
                answers, truncated = measure_answers(
                    forward, found, precisions, scorer, lambda: line.step(1.0, "measuring accuracy")
                )
            latencies = {item.execution: simulated(item, profile) for item in planned.scored}
            if timed:
                times = measure(
                    path,
                    timed,
                    timed_texts,
                    profile=profile,
                    seed=options.seed,
                    step=lambda: line.step(_RUN_SHARE, "measuring latency"),
                )
                keys = (item.execution for item in timed)
                latencies |= dict(zip(keys, times, strict=True))
        findings = Findings(reader.manifest, answers, latencies)
        return Evaluation(
            pack=reader.manifest.name,
            pack_id=reader.pack_id,
            data=found.name,
            metric=quality.metric,
            examples=len(found.texts),
            truncated=truncated,
            tokens=tokens,
            device=profile.device,
            jitter=max(run.jitter for run in profile.runs.values()),
            runs=len(timed_texts),
            seed=options.seed,
            full=findings.entry("full model", planned.full),
            cells=tuple(findings.cell(cell) for cell in planned.cells),
            uniform=tuple(findings.entry("uniform", item) for item in planned.uniform),
            forecast_plans=findings.forecast_of(planned.plans),
            forecast_all=findings.forecast_of(planned.contenders),
        )


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


def _timed_texts(fitting: Sequence[Text], tokens: int, options: EvaluateOptions) -> list[Text]:
    """The texts that are timed: none where time is simulated."""
    if options.device is not None:
        return []
    if not fitting:
        raise InputError(
            f"no text of the data falls into the workload of {tokens} tokens; leave --tokens out, "
            "or simulate with --device"
        )
    return draw(fitting, options.runs, seed=options.seed)
