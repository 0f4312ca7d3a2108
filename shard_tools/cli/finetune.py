"""``sti-shard finetune``: train a checkpoint whose submodels and low fidelities answer well.

In: parsed arguments. Out: the checkpoint, and its scores on standard output.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from shard_tools.cli.arguments import PROGRAM, add_output, add_quiet, add_seed, ladder
from sti.cli import arguments
from sti.cli.program import print_json
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

TRAIN and DEV are .tsv files with a header line, or .jsonl, gzipped or not. Their columns are
sentence (or text), or sentence1 and sentence2; and label, or score for a regression. Labels are
names, and every label of DEV must occur in TRAIN.

First the float model is fine-tuned. Then heads and neurons are sorted by importance, and submodels
of every depth and width are trained at the fidelities of the nested code, with the float model as
the teacher. The result is a checkpoint for `sti-shard build`, and in it calibration.tsv for
`sti-shard rank`.

During training, its state is kept in DIR.training. After an interruption the same command continues
from there. It also does so with lower rates after a loss became infinite; the log says so.

Needs the extra "train" (onnx, safetensors, torch; a CPU build of torch is enough).
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    summary = "train a checkpoint for every depth, width and fidelity"
    command = arguments.add_command(
        commands, "finetune", summary, _EXAMPLES, execute=execute, extra="train"
    )
    add = command.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="the checkpoint to start from")
    add("--data", type=Path, required=True, metavar="TRAIN", help="rows to train on")
    add(
        "--dev",
        type=Path,
        required=True,
        metavar="DEV",
        help="rows to report scores on; nothing is trained or chosen with them",
    )
    add_output(command, "DIR", "the directory to make for the new checkpoint", required=True)
    add("--task", choices=TASKS, default="classification", help="default: %(default)s")
    add(
        "--slices",
        type=int,
        metavar="M",
        help="slices per block, as for build (default: one per attention head)",
    )
    fidelities = command.add_mutually_exclusive_group()
    fidelities.add_argument(
        "--ladder",
        type=ladder,
        metavar="BITS",
        help="fidelities to train, in bits per weight (default: 2,3,4,6,8)",
    )
    fidelities.add_argument(
        "--no-fidelities",
        action="store_true",
        help="train submodels with float weights only, for comparison",
    )
    _add_schedule(command)
    _add_calibration(command)
    add_seed(command)
    arguments.add_threads(command, "what torch chooses")
    add(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of matrix products (default: bfloat16 if the processor has it, else float32)",
    )
    add_quiet(command)


def _add_schedule(command: argparse.ArgumentParser) -> None:
    """How long and how fast is trained."""
    add = command.add_argument
    add(
        "--plain-epochs",
        type=float,
        default=3.0,
        metavar="E",
        help="epochs of the float model, which come first (default: %(default)g)",
    )
    add(
        "--epochs",
        type=float,
        default=8.0,
        metavar="E",
        help="epochs of the submodels (default: %(default)g)",
    )
    add("--batch", type=int, default=32, metavar="N", help="rows in a step (default: %(default)s)")
    add(
        "--rate",
        type=float,
        default=1.5e-4,
        help="learning rate of the submodels (default: %(default)g)",
    )
    add(
        "--plain-rate",
        type=float,
        help="learning rate of the float model (default: that of --rate)",
    )
    add(
        "--head-rate",
        type=float,
        default=2e-3,
        help="learning rate of the head (default: %(default)g)",
    )
    add(
        "--passes",
        type=int,
        default=1,
        metavar="N",
        help="random submodels trained in a step, besides the full, the middle and the smallest "
        "one (default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=int,
        default=128,
        metavar="N",
        help="tokens that are kept of a longer text (default: %(default)s)",
    )


def _add_calibration(command: argparse.ArgumentParser) -> None:
    """Which rows are kept for `rank`."""
    add = command.add_argument
    add(
        "--calibration-rows",
        type=int,
        default=1000,
        metavar="N",
        help="rows of TRAIN that are kept out of training, for rank (default: %(default)s)",
    )
    add(
        "--calibration-whole",
        action="store_true",
        help="keep out only rows that are no part of another row; for data in which TRAIN has "
        "phrases as well, and DEV only whole sentences",
    )
    add(
        "--calibration-share",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="choose them from this share of each label's rows, those least like any other row "
        "(default: %(default)g, all rows; 0.5 for data whose rows are variations of one another)",
    )


def execute(args: argparse.Namespace) -> None:
    """Train, and describe the result."""
    _check(args)
    from shard_tools.train.finetune import finetune
    from shard_tools.train.options import FinetuneOptions, TrainingOptions
    from shard_tools.train.record import STATE
    from shard_tools.train.workplace import work_directory
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
    except KeyboardInterrupt as stopped:
        work = work_directory(args.output)
        left = "nothing was kept yet; the same command starts again from the beginning"
        if (work / STATE).exists():
            left = f"the same command continues from what {work} holds"
        raise KeyboardInterrupt(left) from stopped
    _show(args, made, monotonic() - start)


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
            print(
                f"  {made.rows_left_out} rows were not used: each is part of a row kept out, or "
                "holds one"
            )
        for score in made.scores:
            fidelity = f"{score.bits} bits" if score.bits else "float weights"
            print(f"  depth {score.depth}, width {score.width}, {fidelity}: dev {score.value:.4f}")


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
