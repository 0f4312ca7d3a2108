"""Options that several commands of ``sti-shard`` share, in addition to ``sti.cli.arguments``.

Knows no command. NumPy comes in when a command is carried out, not with these modules.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PROGRAM = "sti-shard"


def add_output(parser: Any, metavar: str, what: str, *, required: bool = False) -> argparse.Action:
    """Where the result is written."""
    found: argparse.Action = parser.add_argument(
        "-o", "--output", type=Path, required=required, metavar=metavar, help=what
    )
    return found


def add_dry_run(parser: Any, output: argparse.Action, what: str) -> None:
    """The option ``--dry-run``, with which no output needs to be named."""

    class DryRun(argparse.Action):
        def __call__(self, _parser: object, args: argparse.Namespace, *_: object) -> None:
            args.dry_run, output.required = True, False

    parser.add_argument("--dry-run", action=DryRun, nargs=0, default=False, help=what)


def add_seed(parser: Any) -> None:
    """The seed of what is random."""
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="seed of everything that is random (default: %(default)s)",
    )


def add_quiet(parser: Any, what: str = "show no progress and no summary") -> None:
    """The option ``--quiet``; errors and the document of ``--json`` are printed all the same."""
    parser.add_argument("--quiet", action="store_true", help=what)


def ladder(text: str) -> tuple[int, ...]:
    """``2,3,4`` as numbers; argparse turns the error into one of usage."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of bits such as 2,3,4,6,8"
        ) from None
