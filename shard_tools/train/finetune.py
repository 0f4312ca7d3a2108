"""``sti-shard finetune``: a checkpoint and labelled rows -> a checkpoint trained for elasticity.

In: paths and options. Out: a directory that ``sti-shard build`` takes: the usual files of a
checkpoint, ``elastic.json`` (the layers of every depth, widths, ladder, estimated importance, what
it was trained with, dev scores), ``calibration.tsv`` (rows that training never saw, for
``sti-shard rank``) and ``training.jsonl``. While it runs, all of it lies in ``OUTPUT.training``,
from where a killed run resumes. Knows nothing of how a step is done.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.elastic import VERSION
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.data.rows import Row, read_rows, targets_of
from shard_tools.progress import Progress
from shard_tools.train.data import Examples, encode_rows, hold_out
from shard_tools.train.export import write_checkpoint
from shard_tools.train.fisher import ROWS as FISHER_ROWS
from shard_tools.train.fisher import fisher_gains
from shard_tools.train.network import ElasticNetwork
from shard_tools.train.options import FinetuneOptions, TrainingOptions
from shard_tools.train.scoring import DevScore
from shard_tools.train.tensors import load_network, sizes_of
from shard_tools.train.trainer import LOG, Trainer
from sti.codec.codebook import check_ladder
from sti.errors import InputError, PackFormatError, StorageError
from sti.text.wordpiece import Tokenizer
from sti.version import __version__

_MOST_SEED = 2**32 - 1
_LEAST_TOKENS = 5
"""Three special tokens around a pair of texts, and one of each text."""

_READ = (".json", ".safetensors", ".txt")
"""Files of a checkpoint by the ends of their names: weights, configuration, tokenizer."""


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What came out: where it lies, dev scores, and the layers of every depth."""

    directory: Path
    rows: int
    calibration_rows: int
    rows_left_out: int
    """Rows in neither set: they are parts of a calibration row, or one is a part of them."""
    scores: tuple[DevScore, ...]
    depths: dict[int, tuple[int, ...]]


def finetune(
    checkpoint: Path,
    training: Path,
    dev: Path,
    output: Path,
    options: FinetuneOptions,
    *,
    progress: bool | None = None,
) -> Finetuned:
    """Fine-tune a checkpoint for every depth, width and fidelity.

    Args:
        checkpoint: a BERT-family directory; its head, if any, is not used.
        training: rows to train on, and to hold calibration rows out of.
        dev: rows to score with; nothing is chosen by them.
        output: the directory to make; must not exist yet.
        progress: as in ``build``.

    Raises:
        CheckpointError: the checkpoint is missing, malformed or not supported.
        InputError: data or options cannot be used, or ``output`` exists.
        RunError: a loss or a weight became NaN or infinite; the last good state stays in
            ``OUTPUT.training``.
        StorageError: reading or writing failed.
    """
    _check(options, output)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    data = _read(training, dev, options)
    with Checkpoint(checkpoint) as opened:
        open_model(opened, slices=options.slices)  # refuses what the builder could not use
        examples = _examples(data, checkpoint, options.max_tokens, paths=(training, dev))
        sizes = sizes_of(opened, outputs=max(1, len(data.labels)), slices=options.slices)
        network = load_network(opened, sizes, _precision(options.precision))
        _start_head(network, options.training.seed)
        _check_steps(options.training, len(examples.training))
        work = _work_directory(output)
        trainer = Trainer(
            network,
            examples.training,
            examples.dev,
            options.training,
            work,
            regression=options.task == "regression",
            key=_key(options, checkpoint, training, dev),
        )
        rest = FISHER_ROWS if options.training.ladder else 0
        with Progress(trainer.work_left + rest, shown=progress) as line:
            scores = tuple(trainer.train(line))
            report = _report(options, data, scores, trainer)
            if options.training.ladder:
                report["importance"] = _importance(network, examples, options, line)
        write_checkpoint(work / "checkpoint", opened, network, data.labels, data.held, report)
    _finish(work, output)
    kept = len(data.rows), len(data.held), data.left_out
    return Finetuned(output, *kept, scores, trainer.depths)


def _check(options: FinetuneOptions, output: Path) -> None:
    """Refuse at once what would otherwise fail after hours."""
    if os.path.lexists(output):
        raise InputError(f"{output}: exists; name another output, or remove it")
    steps = options.training
    try:
        if steps.ladder:
            check_ladder(steps.ladder)
    except PackFormatError as error:
        raise InputError(f"ladder: {error}") from error
    if not 0 <= steps.seed <= _MOST_SEED:
        raise InputError(f"the seed must lie within 0..{_MOST_SEED}, found {steps.seed}")
    if options.max_tokens < _LEAST_TOKENS:
        raise InputError(
            f"texts must keep at least {_LEAST_TOKENS} tokens, found {options.max_tokens}"
        )


def _check_steps(options: TrainingOptions, rows: int) -> None:
    stages = (("--plain-epochs", options.plain_epochs), ("--epochs", options.epochs))
    for name, epochs in stages:
        if not options.steps(epochs, rows):
            raise InputError(
                f"{name} {epochs:g}: not one step of {options.batch} of {rows} rows; ask for more"
            )


@dataclass(frozen=True, slots=True)
class _Data:
    """Rows to train on, to calibrate and to score with; no labels for a regression."""

    rows: Sequence[Row]
    held: Sequence[Row]
    left_out: int
    dev: Sequence[Row]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Examples:
    """The rows of ``_Data``, tokenized."""

    training: Examples
    held: Examples
    dev: Examples


def _read(training: Path, dev: Path, options: FinetuneOptions) -> _Data:
    """Read, check and split the data."""
    rows, scored = read_rows(training, options.task), read_rows(dev, options.task)
    if isinstance(rows[0].text, str) != isinstance(scored[0].text, str):
        raise InputError(f"{training} and {dev}: one has single texts, the other pairs")
    labels = () if options.task == "regression" else _labels(rows, training)
    left, held = hold_out(
        rows,
        options.calibration_rows,
        seed=options.training.seed,
        by_label=bool(labels),
        whole=options.calibration_whole,
        share=options.calibration_share,
        where=str(training),
    )
    trained = Counter(row.label for row in left)
    for label in labels:
        if not trained[label]:
            raise InputError(
                f"{training}: no row of label {label!r} is left to train on; it needs more, or "
                "fewer rows for calibration"
            )
    return _Data(left, held, len(rows) - len(left) - len(held), scored, labels)


def _labels(rows: Sequence[Row], path: Path) -> tuple[str, ...]:
    labels = tuple(sorted({row.label for row in rows}))
    if len(labels) < 2:
        raise InputError(f"{path}: all rows have the label {labels[0]!r}; nothing can be learned")
    for row in rows:
        if set(row.label) & set("\t\r\n"):  # JSON Lines may, the calibration rows must not
            raise InputError(f"{path}: line {row.line}: label {row.label!r} has TABs or line ends")
    return labels


def _examples(
    data: _Data, checkpoint: Path, max_tokens: int, *, paths: tuple[Path, Path]
) -> _Examples:
    """All rows, tokenized."""
    spec, vocabulary = load_tokenizer(checkpoint)
    limit = min(max_tokens, spec.max_tokens)
    tokenizer = Tokenizer(replace(spec, max_tokens=limit), vocabulary)
    training, dev = paths

    def encoded(rows: Sequence[Row], path: Path) -> Examples:
        return encode_rows(rows, targets_of(rows, data.labels, path), tokenizer)

    return _Examples(
        encoded(data.rows, training), encoded(data.held, training), encoded(data.dev, dev)
    )


def _importance(
    network: ElasticNetwork, examples: _Examples, options: FinetuneOptions, line: Progress
) -> dict[str, Any]:
    """The gains of all planes as ``elastic.json`` has them, estimated on rows kept out if any."""
    rows = examples.held if len(examples.held) else examples.training
    seed, regression = options.training.seed, options.task == "regression"
    blocks = []
    for name, gains in fisher_gains(network, rows, line, regression=regression, seed=seed).items():
        layer, kind = name.split(".")
        table = [[float(f"{gain:.4g}") for gain in row] for row in gains]
        blocks.append({"layer": int(layer), "kind": kind, "gains": table})
    return {"measure": "fisher", "examples": min(len(rows), FISHER_ROWS), "blocks": blocks}


def _precision(name: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively: twice as fast, float32 weights kept."""
    if name == "auto":
        known = hasattr(torch.cpu, "get_capabilities")  # older versions of torch do not tell
        native = known and torch.cpu.get_capabilities().get("avx512_bf16", False)
        return torch.bfloat16 if native else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


@torch.no_grad()
def _start_head(network: ElasticNetwork, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    network.classifier.normal_(0.0, 0.02, generator=generator)


def _work_directory(output: Path) -> Path:
    work = output.with_name(output.name + ".training")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{work}: cannot be made: {error.strerror}") from error
    return work


def _key(options: FinetuneOptions, checkpoint: Path, training: Path, dev: Path) -> str:
    """Names everything that the result depends on, but for the rates.

    A run whose loss became infinite goes on from its last good state with a lower one.
    """
    chosen = asdict(replace(options, threads=None, precision=str(_precision(options.precision))))
    for rate in ("rate", "plain_rate", "head_rate"):
        del chosen["training"][rate]
    digest = hashlib.sha256(json.dumps(chosen).encode())
    files = [path for path in checkpoint.iterdir() if path.suffix in _READ]
    for path in (*sorted(files), training, dev):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _report(
    options: FinetuneOptions, data: _Data, scores: Sequence[DevScore], trainer: Trainer
) -> dict[str, Any]:
    slices = trainer.network.sizes.slices
    return {
        "elastic": VERSION,
        "slices": slices,
        "depths": {str(depth): list(layers) for depth, layers in sorted(trainer.depths.items())},
        "widths": list(range(1, slices + 1)),
        "ladder": list(options.training.ladder),
        "task": options.task,
        "labels": list(data.labels),
        "rows": len(data.rows),
        "calibration_rows": len(data.held),
        "rows_left_out": data.left_out,
        "max_tokens": options.max_tokens,
        "precision": str(trainer.network.dtype).removeprefix("torch."),
        "training": asdict(options.training),
        "dev": [asdict(score) for score in scores],
        "generator": f"sti-shard {__version__}, torch {torch.__version__}",
    }


def _finish(work: Path, output: Path) -> None:
    """Move the checkpoint to its place and remove what a resume would have needed."""
    try:
        shutil.copyfile(work / LOG, work / "checkpoint" / LOG)
        os.replace(work / "checkpoint", output)
        shutil.rmtree(work)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error}") from error
