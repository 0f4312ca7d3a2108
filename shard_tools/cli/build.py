"""``sti-shard build``: a pack of a checkpoint."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from shard_tools.cli.common import add_json, add_parser, ladder, print_json
from sti.errors import InputError
from sti.units import format_size, format_time

_EXAMPLES = """\
examples:
  sti-shard build ./all-MiniLM-L6-v2 -o minilm.sti.safetensors
  sti-shard build ./my-classifier -o topics.sti.safetensors --ladder 2,4,8 --slices 6
  sti-shard build ./my-classifier -o topics.sti.safetensors --calibration texts.txt

A checkpoint is a Hugging Face style directory of the BERT family: config.json, model.safetensors
(or several with an index), tokenizer.json or vocab.txt, and, for sentence embeddings,
sentence-transformers' modules.json and pooling configuration where they exist.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = add_parser(commands, "build", "make a pack of a checkpoint", _EXAMPLES, execute)
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="its directory")
    command.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PACK", help="the pack to write"
    )
    command.add_argument(
        "--slices",
        type=int,
        metavar="M",
        help="vertical parts of every block (default: one a head); must divide heads and neurons",
    )
    command.add_argument(
        "--ladder",
        type=ladder,
        metavar="BITS",
        help="fidelities the pack offers, in bits a weight (default: those the checkpoint was "
        "trained for, else 2,3,4,6,8)",
    )
    command.add_argument(
        "--grid",
        type=float,
        metavar="SIGMAS",
        help="reach of the int8 grids in standard deviations of a row (default 7; 6 favours 8 "
        "bits, 8 the lower fidelities)",
    )
    command.add_argument("--name", default="", help="name of the model (default: the directory's)")
    command.add_argument(
        "--licence", default="", help="its licence (default: what the model card says)"
    )
    command.add_argument("--source", default="", help="where the checkpoint comes from")
    command.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="texts, one a line, to measure importance with (default: a built-in set)",
    )
    command.add_argument("--quiet", action="store_true", help="no progress and no summary")
    add_json(command)


def execute(args: argparse.Namespace) -> int:
    """Make the pack and say what came of it."""
    # Sums of float products differ with the number of threads, and a pack's bytes must not; nor do
    # threads that wait for one another get far on a busy machine. Heeded when NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from shard_tools.packing.build import build
        from shard_tools.packing.options import BuildOptions
    except ModuleNotFoundError as error:
        raise InputError(
            f"building needs the Python package {error.name!r}; install the extra: "
            "pip install 'sti[build]'"
        ) from error
    from sti.pack.pack_reader import PackReader

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
    start = monotonic()
    build(args.checkpoint, args.output, options, progress=False if args.quiet else None)
    seconds = monotonic() - start
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
                }
            )
        elif not args.quiet:
            print(
                f"{args.output}: {manifest.name}, {manifest.task}, "
                f"{manifest.dimensions.layers} layers x {manifest.dimensions.slices} slices, "
                f"{format_size(reader.file_bytes)}, built in {format_time(seconds)}"
            )
    return 0
