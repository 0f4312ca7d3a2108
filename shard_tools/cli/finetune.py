"""``sti-shard finetune``: train a checkpoint whose submodels and low fidelities answer well."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from shard_tools.cli.common import PROGRAM, add_json, add_parser, ladder, print_json
from sti.device.host import check_threads
from sti.errors import InputError
from sti.units import format_time

if TYPE_CHECKING:
    from shard_tools.train.finetune import Finetuned

TASKS = ("classification", "pair", "regression")
PRECISIONS = ("auto", "float32", "bfloat16")

_EXAMPLES = """\
examples:
  sti-shard finetune ./all-MiniLM-L6-v2 --data train.tsv --dev val.tsv -o ./intents
  sti-shard finetune ./all-MiniLM-L6-v2 --data rte.tsv --dev dev.tsv --task pair -o ./rte
  sti-shard finetune ./all-MiniLM-L6-v2 --data train.tsv.gz --dev val.tsv --epochs 12 --seed 1 \\
      --threads 2 -o ./intents

Data: .tsv with a header line, or .jsonl, gzipped or not. Columns: sentence (or text), or sentence1
and sentence2; label, or score for a regression. Labels are names; dev may have no others.

First the float model is fine-tuned. Then heads and neurons are sorted by importance, and submodels
of every depth and width are trained at fidelities of the nested code, with the float model as the
teacher. The result is a checkpoint for `sti-shard build`, and calibration.tsv for `sti-shard rank`.

While it runs, its state lies in OUTPUT.training. After a kill or Ctrl-C, the same command goes on;
so it does with lower rates, where a loss became infinite (which the log then tells).
Needs the extra: pip install 'sti[train]'.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    summary = "train a checkpoint for every depth, width and fidelity"
    command = add_parser(commands, "finetune", summary, _EXAMPLES, execute)
    add = command.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="where to start from: a directory")
    add("--data", type=Path, required=True, metavar="TRAIN", help="rows to train on")
    add("--dev", type=Path, required=True, metavar="DEV", help="rows to score with, not chosen by")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="the checkpoint to make")
    add("--task", choices=TASKS, default="classification", help="default: %(default)s")
    add("--slices", type=int, metavar="M", help="as in build (default: one a head)")
    fidelities = command.add_mutually_exclusive_group()
    fidelities.add_argument(
        "--ladder", type=ladder, metavar="BITS", help="fidelities to train (default 2,3,4,6,8)"
    )
    fidelities.add_argument(
        "--no-fidelities",
        action="store_true",
        help="train submodels with float weights only (to compare with)",
    )
    add("--epochs", type=float, default=8.0, help="of submodels (default %(default)g)")
    add("--plain-epochs", type=float, default=3.0, help="before that (default %(default)g)")
    add("--batch", type=int, default=32, help="rows a step (default %(default)s)")
    add("--rate", type=float, default=1.5e-4, help="learning rate (default %(default)g)")
    add(
        "--plain-rate",
        type=float,
        help="learning rate before submodels are trained (default: as --rate)",
    )
    add("--head-rate", type=float, default=2e-3, help="the head's (default %(default)g)")
    add(
        "--passes",
        type=int,
        default=1,
        metavar="N",
        help="random submodels a step, besides full, middle and smallest (default %(default)s)",
    )
    add("--max-tokens", type=int, default=128, help="longer texts are cut (default %(default)s)")
    add(
        "--calibration-rows",
        type=int,
        default=1000,
        metavar="N",
        help="rows kept out of training, for rank (default %(default)s)",
    )
    add(
        "--calibration-whole",
        action="store_true",
        help="keep out only rows that are no part of another, where TRAIN has phrases, too, and "
        "DEV whole sentences",
    )
    add(
        "--calibration-share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="keep them out of this share of each label's rows, those least like any other "
        "(default %(default)g: all; 0.5 for data whose rows are variations of one another)",
    )
    add("--seed", type=int, default=0, help="default %(default)s")
    add("--threads", type=int, metavar="N", help="of torch (default: its own choice)")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of products (default: bfloat16 where the processor has it)",
    )
    add("--quiet", action="store_true", help="no progress and no summary")
    add_json(command)


def execute(args: argparse.Namespace) -> int:
    """Train, and say what came of it."""
    _check(args)
    try:
        from shard_tools.train.finetune import finetune
        from shard_tools.train.options import FinetuneOptions, TrainingOptions
        from shard_tools.train.record import STATE
    except ModuleNotFoundError as error:
        raise InputError(
            f"training needs the Python package {error.name!r}; install the extra: "
            "pip install 'sti[train]'"
        ) from error
    from sti.codec.codebook import DEFAULT_LADDER

    fidelities = () if args.no_fidelities else args.ladder or DEFAULT_LADDER
    training = TrainingOptions(
        epochs=args.epochs,
        plain_epochs=args.plain_epochs,
        batch=args.batch,
        rate=args.rate,
        plain_rate=args.plain_rate or args.rate,
        head_rate=args.head_rate,
        passes=args.passes,
        seed=args.seed,
        ladder=fidelities,
    )
    options = FinetuneOptions(
        training,
        args.task,
        slices=args.slices,
        max_tokens=args.max_tokens,
        calibration_rows=args.calibration_rows,
        calibration_whole=args.calibration_whole,
        calibration_share=args.calibration_share,
        threads=args.threads,
        precision=args.precision,
    )
    start = monotonic()
    try:
        made = finetune(
            args.checkpoint,
            args.data,
            args.dev,
            args.output,
            options,
            progress=False if args.quiet else None,
        )
    except KeyboardInterrupt:
        work = Path(f"{args.output}.training")
        left = "nothing was kept yet, the same command starts anew"
        if (work / STATE).exists():
            left = f"the same command goes on from what {work} holds"
        print(f"{PROGRAM}: interrupted; {left}", file=sys.stderr)
        return 130
    _show(args, made, monotonic() - start)
    return 0


def _show(args: argparse.Namespace, made: Finetuned, seconds: float) -> None:
    if args.json:
        print_json(
            {
                "path": str(made.directory),
                "rows": made.rows,
                "calibration_rows": made.calibration_rows,
                "rows_left_out": made.rows_left_out,
                "depths": {str(depth): list(layers) for depth, layers in made.depths.items()},
                "dev": [asdict(score) for score in made.scores],
                "seconds": round(seconds, 3),
            }
        )
    elif not args.quiet:
        print(
            f"{made.directory}: trained on {made.rows} rows in {format_time(seconds)}, "
            f"{made.calibration_rows} kept out for `{PROGRAM} rank`"
        )
        if made.rows_left_out:
            print(f"  {made.rows_left_out} left out: parts of rows kept out, or longer than those")
        for score in made.scores:
            fidelity = f"{score.bits} bits" if score.bits else "float weights"
            print(f"  depth {score.depth} x width {score.width}, {fidelity}: dev {score.value:.4f}")


def _check(args: argparse.Namespace) -> None:
    """Refuse numbers that make no sense before anything is read."""
    positive = (
        "plain_epochs",
        "epochs",
        "batch",
        "rate",
        "plain_rate",
        "head_rate",
        "passes",
        "max_tokens",
        "slices",
    )
    check_threads(args.threads, name="--threads")
    if not 0.0 < args.calibration_share <= 1.0:
        found = args.calibration_share
        raise InputError(f"--calibration-share must be above 0 and at most 1, found {found}")
    for name in (*positive, "calibration_rows"):
        value = getattr(args, name)
        if value is None:
            continue
        if not (math.isfinite(value) and (value > 0 if name in positive else value >= 0)):
            least = "a number above zero" if name in positive else "at least zero"
            raise InputError(f"--{name.replace('_', '-')} must be {least}, found {value}")
