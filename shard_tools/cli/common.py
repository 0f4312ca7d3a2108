"""What the commands of ``sti-shard`` share: how they are declared, and how JSON is printed.

Knows no command. NumPy comes in when a command is carried out, not with these modules.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

PROGRAM = "sti-shard"


def add_parser(
    commands: Any, name: str, summary: str, examples: str, execute: Any
) -> argparse.ArgumentParser:
    """A command whose help ends with ``examples`` and that ``execute(args)`` carries out."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(execute=execute)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option ``--json``."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document and nothing else"
    )


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1))


def ladder(text: str) -> tuple[int, ...]:
    """``2,3,4`` as numbers; argparse turns the error into one of usage."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of bits such as 2,3,4,6,8") from None
