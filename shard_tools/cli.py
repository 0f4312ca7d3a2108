"""The command line of the offline tool: ``sti-shard build``, ``inspect`` and ``verify``.

In: arguments. Out: answers on standard output, messages on standard error, an exit code: 0, 1 for
a failure, 2 for bad usage, bad input (a damaged pack included) or storage that fails, 130 for
Ctrl-C.
Knows nothing of how packs are made or read. NumPy comes in with the commands, not with this module:
``build`` has to speak to it first.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic
from typing import Any

from sti.cli.stdout import output_failed
from sti.errors import InputError, StiError
from sti.units import format_size, format_time

PROGRAM = "sti-shard"

_BUILD_EXAMPLES = """\
examples:
  sti-shard build ./all-MiniLM-L6-v2 -o minilm.sti.safetensors
  sti-shard build ./my-classifier -o topics.sti.safetensors --ladder 2,4,8 --slices 6
  sti-shard build ./my-classifier -o topics.sti.safetensors --calibration texts.txt

A checkpoint is a Hugging Face style directory of the BERT family: config.json, model.safetensors
(or several with an index), tokenizer.json or vocab.txt, and, for sentence embeddings,
sentence-transformers' modules.json and pooling configuration where they exist.
"""
_INSPECT_EXAMPLES = """\
examples:
  sti-shard inspect minilm.sti.safetensors
  sti-shard inspect minilm.sti.safetensors --json | jq .bytes
"""
_VERIFY_EXAMPLES = """\
examples:
  sti-shard verify minilm.sti.safetensors
  sti-shard verify minilm.sti.safetensors --json && echo sound
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. Bad usage leaves through ``SystemExit(2)``."""
    try:
        if hasattr(sys.stdout, "reconfigure"):
            # Names and labels may hold what the terminal cannot show.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            args = build_parser().parse_args(argv)
        finally:
            sys.stdout.flush()  # help leaves through SystemExit
        code: int = args.execute(args)
        sys.stdout.flush()
    except StiError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; nothing was left behind", file=sys.stderr)
        return 130
    except MemoryError:
        print(f"{PROGRAM}: error: out of memory", file=sys.stderr)
        return 1
    except OSError as error:
        return output_failed(error, f"{PROGRAM}: error")
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Make packs of checkpoints, and look into packs.",
        epilog=f"`{PROGRAM} COMMAND --help` explains a command. Packs are run with `sti run`.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_build(commands)
    for name, summary, examples, execute in (
        ("inspect", "show what a pack holds", _INSPECT_EXAMPLES, _inspect),
        ("verify", "compare every checksum of a pack", _VERIFY_EXAMPLES, _verify),
    ):
        command = _command(commands, name, summary, examples, execute)
        command.add_argument("pack", type=Path, metavar="PACK", help="the pack")
        _add_json(command)
    return parser


def _add_build(commands: Any) -> None:
    command = _command(commands, "build", "make a pack of a checkpoint", _BUILD_EXAMPLES, _build)
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
        type=_ladder,
        metavar="BITS",
        help="fidelities the pack offers, in bits a weight (default 2,3,4,6,8)",
    )
    command.add_argument(
        "--grid",
        type=float,
        metavar="SIGMAS",
        help="reach of the int8 grids in standard deviations of a row (default 8; 6 favours 8 "
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
    _add_json(command)


def _command(
    commands: Any, name: str, summary: str, examples: str, execute: Any
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(execute=execute)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document and nothing else"
    )


def _ladder(text: str) -> tuple[int, ...]:
    """``2,3,4`` as numbers; argparse turns the error into one of usage."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of bits such as 2,3,4,6,8") from None


def _build(args: argparse.Namespace) -> int:
    # Sums of float products differ with the number of threads, and a pack's bytes must not; nor do
    # threads that wait for one another get far on a busy machine. Heeded when NumPy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from shard_tools.build import BuildOptions, build
    except ModuleNotFoundError as error:
        raise InputError(
            f"building needs the Python package {error.name!r}; install the extra: "
            "pip install 'sti[build]'"
        ) from error
    from sti.pack import PackReader

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
            _print_json(
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


def _inspect(args: argparse.Namespace) -> int:
    from shard_tools.inspecting import describe, render
    from sti.pack import PackReader

    with PackReader.open(args.pack) as reader:
        description = describe(reader)
    if args.json:
        _print_json(description)
    else:
        print(render(description), end="")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from shard_tools.progress import Progress
    from sti.verify import verify

    done = 0
    with Progress(1.0, shown=False if args.json else None) as line:

        def progress(now: int, total: int) -> None:
            nonlocal done
            line.step((now - done) / total, "comparing checksums")
            done = now

        report = verify(args.pack, progress)
    if args.json:
        faults = [{**asdict(fault), "text": str(fault)} for fault in report.faults]
        _print_json(
            {
                "path": str(report.path),
                "good": report.good,
                "bytes": report.file_bytes,
                "checksums": report.checksums,
                "faults": faults,
            }
        )
    elif report.good:
        print(f"{args.pack}: sound ({report.checksums} checksums match)")
    else:
        for fault in report.faults:
            print(f"{args.pack}: damaged: {fault}")
    if not report.good and not args.json:
        print(
            f"{PROGRAM}: error: {args.pack}: {len(report.faults)} of {report.checksums} parts are "
            "damaged; fetch or build the pack again",
            file=sys.stderr,
        )
    return 0 if report.good else 2


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1))
