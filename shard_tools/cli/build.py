"""``sti-shard build``: a pack from a checkpoint.

In: parsed arguments. Out: the pack, and what became of the checkpoint, in words or as a JSON
document, on standard output; warnings on standard error.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from shard_tools.cli.arguments import PROGRAM, add_dry_run, add_output, add_quiet, ladder
from sti.cli import arguments
from sti.cli.program import notice, print_json
from sti.units import format_size, format_time

if TYPE_CHECKING:
    from shard_tools.packing.summary import Summary

_EXAMPLES = """\
examples:
  sti-shard build ./all-MiniLM-L6-v2 -o minilm.sti.safetensors
  sti-shard build ./my-classifier -o topics.sti.safetensors --ladder 2,4,8 --slices 6
  sti-shard build ./my-classifier -o topics.sti.safetensors --calibration texts.txt
  sti-shard build ~/.cache/huggingface/hub/models--x--y --dry-run

A checkpoint is a directory in the style of Hugging Face, with a model of one of the families
BERT, DistilBERT, ELECTRA, RoBERTa, XLM-RoBERTa, CamemBERT and MPNet: config.json,
model.safetensors (or several with an index), tokenizer.json or vocab.txt, and, for sentence
embeddings, the modules.json and the pooling configuration of sentence-transformers if they are
there.

Needs onnxruntime and the extra "build" (onnx, safetensors).
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = arguments.add_command(
        commands,
        "build",
        "make a pack from a checkpoint",
        _EXAMPLES,
        execute=execute,
        extra="build",
    )
    command.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="the directory of the checkpoint"
    )
    output = add_output(command, "PACK", "the pack to write", required=True)
    add_dry_run(
        command,
        output,
        "read and check the checkpoint and say what would be done, without writing anything; -o "
        "may be left out",
    )
    command.add_argument(
        "--slices",
        type=int,
        metavar="M",
        help="slices per block; must divide the number of heads and the number of neurons "
        "(default: one per attention head)",
    )
    command.add_argument(
        "--ladder",
        type=ladder,
        metavar="BITS",
        help="fidelities the pack offers, in bits per weight, such as 2,4,8 (default: those the "
        "checkpoint was trained for, else 2,3,4,6,8)",
    )
    command.add_argument(
        "--grid",
        type=float,
        metavar="SIGMAS",
        help="range of the int8 grids in standard deviations of a row; 6 favours 8 bits, 8 the "
        "lower fidelities (default: 7, or 2.5 for models without weights far outside)",
    )
    command.add_argument(
        "--name", default="", help="name of the model (default: the directory's name)"
    )
    command.add_argument(
        "--licence", default="", help="licence of the model (default: what the model card says)"
    )
    command.add_argument(
        "--source", default="", help="where the checkpoint comes from (default: not stated)"
    )
    command.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="texts to measure importance with, one per line (default: a built-in set)",
    )
    add_quiet(command)


def execute(args: argparse.Namespace) -> None:
    """Make the pack, and describe it."""
    # Sums of float products differ with the number of threads, and a pack's bytes must not; nor do
    # threads that wait for one another get far on a busy machine. Read when NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from shard_tools.packing.build import build, dry_run
    from shard_tools.packing.options import BuildOptions
    from sti.pack.pack_reader import PackReader
    from sti.report.wording import counted

    options = BuildOptions(
        slices=args.slices,
        name=args.name,
        licence=args.licence,
        source=args.source,
        calibration=args.calibration,
    )
    if args.ladder is not None:
        options = replace(options, ladder=args.ladder)
    if args.grid is not None:
        options = replace(options, grid_sigmas=args.grid)
    if args.dry_run:
        _tell_dry_run(dry_run(args.checkpoint, args.output, options), args)
        return
    start = monotonic()
    built = build(args.checkpoint, args.output, options, progress=False if args.quiet else None)
    seconds = monotonic() - start
    _warn(built.summary, args)
    with PackReader.open(args.output) as reader:
        manifest = reader.manifest
        if args.json:
            print_json(
                {
                    "path": str(args.output),
                    "pack_id": reader.pack_id,
                    "task": manifest.task,
                    "bytes": reader.file_bytes,
                    "seconds": round(seconds, 3),
                    "summary": built.summary.members(),
                }
            )
        elif not args.quiet:
            print(
                f"{args.output}: {manifest.name}, {manifest.task}, "
                f"{counted(manifest.dimensions.layers, 'layer')}, "
                f"{counted(manifest.dimensions.slices, 'slice')}, "
                f"{format_size(reader.file_bytes)}, built in {format_time(seconds)}"
            )
            print("\n".join(built.summary.lines()))


def _tell_dry_run(summary: Summary, args: argparse.Namespace) -> None:
    """Say what a build would do."""
    _warn(summary, args)
    if args.json:
        print_json({"dry_run": True, "summary": summary.members()})
    elif not args.quiet:
        size = format_size(summary.estimated_bytes)
        print(f"{args.checkpoint}: can be built; the pack would have about {size}")
        print("\n".join(summary.lines()))


def _warn(summary: Summary, args: argparse.Namespace) -> None:
    """Say on standard error what may make the pack another model than is meant."""
    for warning in () if args.quiet else summary.warnings:
        notice(warning, PROGRAM)
