"""Entry point of ``sti``: its commands and their options.

Each command lives in a module of its own that is imported when it runs, so that ``sti run`` starts
as fast as it can. A command's module has ``execute(args)``; see ``sti.cli.program.Program``.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from sti.cli import help_texts
from sti.cli.arguments import (
    Parser,
    add_command,
    add_devices,
    add_pack,
    add_report,
    add_target,
    add_threads,
    add_workload,
    count,
    program_parser,
)
from sti.cli.program import Program


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see ``Program.main``."""
    return _PROGRAM.main(argv)


def command() -> NoReturn:
    """``main`` as a process of its own; see ``Program.command``."""
    _PROGRAM.command()


def build_parser(only: str | None = None) -> Parser:
    """The parser of all commands.

    Args:
        only: leave out all commands but this one, for a fast start.
    """
    parser, commands = program_parser(
        "sti",
        "Run transformers from packs, streamed from storage within a latency target.",
        "`sti COMMAND --help` explains a command. Packs are made with `sti-shard build`.",
    )
    for name in _COMMANDS if only is None else (only,):
        summary, epilog, add_options = _COMMANDS[name]
        add_options(add_command(commands, name, summary, epilog))
    return parser


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, those behind options included, which argparse alone would refuse."""
    parser = build_parser(argv[0] if argv and argv[0] in _COMMANDS else None)
    args, rest = parser.parse_known_args(argv)
    options = rest[: rest.index("--")] if "--" in rest else rest
    name = _MANY.get(args.command)
    if rest and (name is None or any(text[:1] == "-" for text in options)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and name is not None:
        given = [text for place, text in enumerate(rest) if place != len(options)]
        setattr(args, name, getattr(args, name) + given)
    return args


_MANY = {"run": "texts", "devices": "names"}
"""What commands take any number of, also behind options."""


def _execute(args: argparse.Namespace) -> int | None:
    execute: Callable[[argparse.Namespace], int | None]
    execute = importlib.import_module(f"sti.cli.{args.command}").execute
    if getattr(args, "engine", None) == "mpi":
        from sti.cli import mpi

        return mpi.execute(args, execute)
    return execute(args)


_PROGRAM = Program(
    "sti",
    _parse,
    _execute,
    out_of_memory="ask for less --memory or --preload, or with --json give fewer texts at once",
)


def _add_run(parser: Parser) -> None:
    add_pack(parser)
    parser.add_argument(
        "texts",
        nargs="*",
        metavar="TEXT",
        help="texts to answer (default: the lines of --input or of standard input)",
    )
    parser.add_argument(
        "--pair",
        action="store_true",
        help="the texts are pairs: two arguments each, or lines of two texts with a TAB between",
    )
    parser.add_argument(
        "--prompt", metavar="TEXT", help="put TEXT in front of each text, or of each pair's first"
    )
    parser.add_argument(
        "--prompt-name",
        metavar="NAME",
        help="put the pack's prompt of this name there (default: the pack's default, if any)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SHARE",
        help="the least score of a label that holds, where several may (default: 0.5)",
    )
    parser.add_argument(
        "--input", metavar="FILE", help="a file with one text per line; - is standard input"
    )
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help="print a line of JSON for each text as soon as it is answered; also for an error",
    )
    add_target(parser)
    add_devices(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare the whole pack with its SHA-256 first (what a run reads is always checked)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail where a damaged part of the pack could be left out",
    )
    parser.add_argument(
        "--no-comparable",
        dest="comparable",
        action="store_false",
        help="let embeddings, too, have a plan for each length of text, and be answered without a "
        "part that is late or damaged: they are then less comparable with others",
    )
    parser.add_argument(
        "--tokens",
        type=count,
        metavar="N",
        help="length of the text that the one plan for embeddings is made for; longer ones may be "
        "late (default: 128)",
    )
    parser.add_argument(
        "--no-adapt",
        dest="adapt",
        action="store_false",
        help="plan from the device profile alone, and wait for what comes too late for the latency "
        "instead of leaving it out",
    )
    parser.add_argument(
        "--keep-memory",
        dest="yield_memory",
        action="store_false",
        help="keep the preload buffer, and what runs take, also while memory is short",
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write a trace of the run that Perfetto can open and --replay can repeat",
    )
    parser.add_argument(
        "--replay",
        metavar="TRACE",
        help="repeat the run of a trace with the same texts, to the bit; excludes options that say "
        "what to run",
    )
    _refuse_device(parser)


def _add_plan(parser: Parser) -> None:
    add_pack(parser)
    add_workload(parser)
    add_target(parser)
    add_devices(parser)
    parser.add_argument(
        "--device",
        metavar="NAME|FILE",
        help="plan for another machine: a device that comes with STI, or a file of its times "
        "(default: this machine)",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say why each block has its bits, what limits the run, and what other targets would "
        "bring; plans for each of them",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="save the plan in FILE, to be followed with `sti run --plan FILE`",
    )


def _add_report(parser: Parser) -> None:
    add_pack(parser)
    add_workload(parser)
    add_target(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the page to FILE; - is standard output (default: the pack's name with .html, "
        "in the working directory; with --json no page)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace FILE even if it is no page of this command"
    )
    _refuse_device(parser)


def _add_bench(parser: Parser) -> None:
    add_pack(parser)
    add_workload(parser)
    parser.add_argument(
        "--repeat", type=count, default=9, metavar="N", help="warm runs of each kind (default: 9)"
    )
    parser.add_argument(
        "--cold-repeat", type=count, default=3, metavar="N", help="cold runs (default: 3)"
    )
    parser.add_argument(
        "--storage",
        metavar="DEVICE",
        help="slow reads down to the pace of another device: microsd, emmc, ufs3, ufs4, or RATE or "
        "RATE:LATENCY, such as 300MB/s:0.2ms; measures warm runs only (default: no delay)",
    )
    parser.add_argument(
        "--against",
        action="append",
        metavar="MODEL",
        help="compare with an ONNX file of the same model; its external data lies beside it in "
        "files called MODEL*data*. May be given several times",
    )
    add_target(parser)
    add_devices(parser)
    add_report(parser)
    _refuse_device(parser)


def _add_calibrate(parser: Parser) -> None:
    parser.add_argument(
        "pack",
        nargs="?",
        metavar="PACK",
        help="pack to measure with (default: none; earlier measurements are listed)",
    )
    parser.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="measure only this number of compute threads (default: every number worth trying)",
    )


def _add_doctor(parser: Parser) -> None:
    parser.add_argument(
        "pack",
        nargs="?",
        metavar="PACK",
        help="pack to examine as well (default: none; storage is measured in the cache directory)",
    )


def _add_worker(parser: Parser) -> None:
    parser.add_argument(
        "pack", metavar="PACK", help="the pack that controllers have, or a part of it"
    )
    parser.add_argument(
        "--listen",
        required=True,
        metavar="ADDR:PORT",
        help="where controllers connect; 0.0.0.0 for every network of this device",
    )
    parser.add_argument(
        "--keys",
        metavar="DIR",
        help="this device's keys, made with `sti devices init` (default: none, which is possible "
        "on 127.0.0.1 only)",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="what controllers call it (default: as its keys say)"
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="the most memory for weights, held or read ahead, such as 200MB (default: a quarter "
        "of what is available)",
    )
    parser.add_argument(
        "--preload",
        metavar="SIZE",
        help="memory for weights that are kept between runs, part of --memory (default: none)",
    )
    add_threads(parser)
    parser.set_defaults(extra="devices")


def _add_devices(parser: Parser) -> None:
    parser.add_argument("action", choices=("init",), help="what to do")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="devices to make keys for, beside this one",
    )
    parser.add_argument(
        "--keys", required=True, metavar="DIR", help="the folder of keys, made if need be"
    )
    parser.set_defaults(extra="devices")


class _OnlyPlanned(argparse.Action):
    """An option of ``plan`` that running cannot have; says so instead of "unrecognized"."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(
            f"{self.option_strings[0]} works with `sti plan` only: a run takes place on this "
            "machine; a plan saved with --output can be followed here with --plan"
        )


def _refuse_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", action=_OnlyPlanned, nargs="?", help=argparse.SUPPRESS)


_COMMANDS: Mapping[str, tuple[str, str, Callable[[Parser], None]]] = {
    "run": ("answer texts with a pack", help_texts.RUN_HELP + help_texts.TARGET_HELP, _add_run),
    "plan": (
        "show what would be read, how long it would take, and how good it would be",
        help_texts.PLAN_HELP + help_texts.TARGET_HELP,
        _add_plan,
    ),
    "report": (
        "make one page about a pack: its plan, what else there is, and how runs went",
        help_texts.REPORT_HELP + help_texts.TARGET_HELP,
        _add_report,
    ),
    "bench": (
        "measure runs, cold and warm, as planned and sequential",
        help_texts.BENCH_HELP + help_texts.TARGET_HELP,
        _add_bench,
    ),
    "calibrate": (
        "measure this device with a pack, and remember it",
        help_texts.CALIBRATE_HELP,
        _add_calibrate,
    ),
    "worker": (
        "compute layers for other devices, until it is stopped",
        help_texts.WORKER_HELP,
        _add_worker,
    ),
    "devices": (
        "make the keys by which devices know each other",
        help_texts.DEVICES_HELP,
        _add_devices,
    ),
    "doctor": (
        "show what this device offers, and what is missing",
        help_texts.DOCTOR_HELP,
        _add_doctor,
    ),
}
"""What each command is for in a line, what ends its help, and what adds its options."""
