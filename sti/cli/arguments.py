"""How both programs declare their commands and the options that several commands share.

Out: parsers, and checks of single options. Imports no more than ``sti run`` needs to understand its
arguments.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from sti.errors import InputError, StiWarning
from sti.version import __version__

if TYPE_CHECKING:
    from sti.model.manifest import Manifest

DEFAULT_TOKENS = 32
_EXIT_CODES = """

exit codes:
  0    success
  1    failure
  2    something you can put right: usage, input, a missing package, storage
  130  interrupted (Ctrl-C); 143 by SIGTERM, 129 by SIGHUP
  141  nobody reads standard output any more
"""
_COLUMNS, _MARGIN = 80, 2
"""Width of a terminal that does not tell its own, and what argparse keeps free of it."""
_COLUMN_DIGITS = 6
"""Of a width that a terminal may have."""
FORMATS = ("md", "csv", "json")


class UsageError(InputError):
    """Arguments that cannot be understood.

    Attributes:
        usage: the lines that show how the command is used.
        program: program and command, as they are called.
    """

    def __init__(self, message: str, *, usage: str, program: str) -> None:
        super().__init__(message)
        self.usage = usage
        self.program = program


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lays out help as wide as the terminal.

    argparse makes a formatter for every option it is told of, and its own would import ``shutil``.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - _MARGIN)


class Parser(argparse.ArgumentParser):
    """A parser that raises ``UsageError`` instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        """Raise."""
        raise UsageError(message, usage=self.format_usage(), program=self.prog)


def program_parser(name: str, description: str, epilog: str) -> tuple[Parser, Any]:
    """The parser of a program, and what its commands are added to."""
    parser = Parser(
        prog=name,
        description=description,
        epilog=epilog.rstrip() + _EXIT_CODES,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{name} {__version__}")
    # Without a name, argparse would lay out a whole usage line to find it, at every start.
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=name)
    return parser, commands


def add_command(commands: Any, name: str, summary: str, epilog: str, **defaults: Any) -> Parser:
    """A command with ``--json``.

    Args:
        summary: one line, in lower case and without a full stop.
        epilog: examples and explanations that end its help.
        defaults: what else the parsed arguments carry.
    """
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(**defaults)
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON document on standard output, also for an error",
    )
    return parser


def wants_json(argv: Sequence[str]) -> bool:
    """Whether JSON is asked for by an argument, whatever becomes of the others."""
    options = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in options or "--jsonl" in options


def add_pack(parser: argparse.ArgumentParser) -> None:
    """The pack that a command works on."""
    parser.add_argument("pack", metavar="PACK", help="the pack, a .safetensors file")


def add_threads(parser: Any, default: str = "as many as `sti calibrate` found best") -> None:
    """The option ``--threads``; ``default`` says what happens without it."""
    parser.add_argument(
        "--threads", type=count, metavar="N", help=f"compute threads (default: {default})"
    )


def add_workload(parser: argparse.ArgumentParser) -> None:
    """How long texts are, and how many are answered at once."""
    parser.add_argument(
        "--tokens",
        type=count,
        metavar="N",
        help=f"tokens in a text (default: {DEFAULT_TOKENS}, or the most the model takes)",
    )
    parser.add_argument(
        "--batch", type=count, default=1, metavar="N", help="texts answered at once (default: 1)"
    )


def workload_tokens(asked: int | None, manifest: Manifest) -> int:
    """Tokens in a text, from ``--tokens``; a notice where the model takes fewer than asked for."""
    most = manifest.dimensions.max_tokens
    if asked is not None and asked > most:
        import warnings

        warnings.warn(
            f"--tokens {asked} was cut to {most} tokens, the most this model takes",
            StiWarning,
            stacklevel=2,
        )
    return min(asked or DEFAULT_TOKENS, most)


def add_target(parser: argparse.ArgumentParser) -> None:
    """What is asked for: a latency, memory, a preload, or exactly what to run."""
    group = parser.add_argument_group("target")
    group.add_argument(
        "--latency",
        metavar="TIME",
        help="time from text in to answer out, such as 200ms (default: no limit)",
    )
    group.add_argument(
        "--memory",
        metavar="SIZE",
        help="the most that may be added to the memory of the process, everything counted, such as "
        "64MB; what runs leave of it holds weights (default: what runs take)",
    )
    group.add_argument(
        "--preload",
        metavar="SIZE",
        help="memory for weights that are kept between runs, such as 4MB (default: none, or what "
        "--memory leaves)",
    )
    group.add_argument(
        "--quantile",
        metavar="SHARE",
        help="share of the runs that are to keep the latency, such as 99%% (default: 98%%)",
    )
    group.add_argument(
        "--floor",
        metavar="SHARE",
        help="refuse to answer with less than this share of the full model's metric, such as 90%% "
        "(default: answer, and warn below 95%%)",
    )
    pinned = group.add_mutually_exclusive_group()
    pinned.add_argument(
        "--fidelity",
        type=count,
        metavar="BITS",
        help="run every shard at this many bits per weight, without planning",
    )
    pinned.add_argument("--plan", metavar="FILE", help="follow a saved plan and its target")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="configuration file (default: ./sti.toml, then ~/.config/sti/sti.toml)",
    )
    group.add_argument("--target", metavar="NAME", help="a target that the configuration names")
    add_threads(group)


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Other devices that a run may use."""
    group = parser.add_argument_group("several devices")
    group.add_argument(
        "--devices",
        metavar="FILE",
        help="a devices.toml that names others, each of which runs `sti worker`; they are used "
        "where that is predicted to be much faster (default: this machine alone)",
    )
    group.add_argument(
        "--keys",
        metavar="DIR",
        help="this machine's keys, made with `sti devices init` (default: none, for workers on "
        "this machine)",
    )
    group.add_argument(
        "--strategy",
        choices=("auto", "local", "chain"),
        default="auto",
        help="who computes: the fastest by prediction, this machine alone, or a chain of devices "
        "(default: auto)",
    )
    group.add_argument(
        "--engine",
        choices=("zeromq", "mpi"),
        default="zeromq",
        help="what carries messages; with mpi the ranks of `mpiexec` are the devices (default: "
        "zeromq)",
    )
    parser.set_defaults(extra="devices")


def add_report(
    parser: argparse.ArgumentParser, formats: Sequence[str] = FORMATS, default: str = "md"
) -> None:
    """Where a report goes, and in which format; ``sti.cli.reports`` carries it out."""
    parser.add_argument(
        "--format",
        choices=formats,
        help=f"format of the report (default: what FILE's name ends with, else {default})",
    )
    parser.add_argument(
        "-o",
        "--output",
        dest="outputs",
        action="append",
        default=[],
        metavar="FILE",
        help="write the report to FILE instead of standard output; may be given several times, for "
        "several formats. With --json, the JSON document is printed as well",
    )


def count(text: str) -> int:
    """A number of at least one; argparse turns the error into one of usage."""
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _columns() -> int:
    """Columns of the terminal, found as ``shutil.get_terminal_size`` finds them."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and len(given) <= _COLUMN_DIGITS and int(given):
        return int(given)
    try:
        return os.get_terminal_size(1).columns or _COLUMNS
    except OSError:  # standard output is no terminal
        return _COLUMNS
