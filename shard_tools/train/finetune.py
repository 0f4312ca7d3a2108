"""``sti-shard finetune``: a checkpoint and labelled rows -> a checkpoint trained for elasticity.

In: paths and options. Out: a directory that ``sti-shard build`` takes: the usual files of a
checkpoint, ``elastic.json`` (the layers of every depth, widths, ladder, estimated importance, what
it was trained with, dev scores), ``calibration.tsv`` (rows that training never saw, for
``sti-shard rank``) and ``training.jsonl``. While it runs, all of it lies in ``OUTPUT.training``,
from where a killed run resumes. Knows nothing of how a step is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from shard_tools.architectures.bert.family import BERT
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.progress import Progress
from shard_tools.train.dataset import encode_dataset, read_dataset
from shard_tools.train.elastic_report import elastic_report, estimate_importance
from shard_tools.train.export import write_checkpoint
from shard_tools.train.fisher import ROWS
from shard_tools.train.network import ElasticNetwork
from shard_tools.train.options import FinetuneOptions, TrainingOptions
from shard_tools.train.scoring import DevScore
from shard_tools.train.tensors import load_network, sizes_of
from shard_tools.train.trainer import Trainer
from shard_tools.train.workplace import CHECKPOINT, check_output, finish, run_key, workplace
from sti.codec.codebook import check_ladder
from sti.errors import CheckpointError, InputError, PackFormatError

_MOST_SEED = 2**32 - 1
_LEAST_TOKENS = 5
"""Three special tokens around a pair of texts, and one of each text."""


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
    data = read_dataset(training, dev, options)
    dtype = _dtype(options.precision)
    with Checkpoint(checkpoint) as opened:
        model = open_model(opened, slices=options.slices)  # refuses what the builder would
        if model.architecture != BERT.name:
            raise CheckpointError(
                f"{checkpoint}: checkpoints of {model.architecture} cannot be fine-tuned here; "
                f"supported: {BERT.name}"
            )
        examples = encode_dataset(data, checkpoint, max_tokens=options.max_tokens)
        sizes = sizes_of(opened, outputs=max(1, len(data.labels)), slices=options.slices)
        network = load_network(opened, sizes, dtype)
        _start_head(network, options.training.seed)
        _check_steps(options.training, len(examples.training))
        same = replace(options, threads=None, precision=str(dtype))
        rest = ROWS if options.training.ladder else 0
        with workplace(output) as work:
            trainer = Trainer(
                network,
                examples.training,
                examples.dev,
                options.training,
                work,
                regression=options.task == "regression",
                key=run_key(same, checkpoint, data.paths),
            )
            with Progress(trainer.work_left + rest, shown=progress) as line:
                scores = tuple(trainer.train(line))
                report = elastic_report(options, data, scores, trainer)
                if options.training.ladder:
                    report["importance"] = estimate_importance(network, examples, options, line)
            write_checkpoint(work / CHECKPOINT, opened, network, data.labels, data.held, report)
            finish(work, output)
    kept = len(data.rows), len(data.held), data.left_out
    return Finetuned(output, *kept, scores, trainer.depths)


def _check(options: FinetuneOptions, output: Path) -> None:
    """Refuse at once what would otherwise fail after hours."""
    check_output(output)
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


def _dtype(name: str) -> torch.dtype:
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
