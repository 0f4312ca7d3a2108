"""Entry point of the offline tool, ``sti-shard``: which commands there are.

Knows neither their options nor what they do: each has a module of its own, which declares it and
carries it out; see ``sti.cli.program.Program``. NumPy comes in with a command's work, not with
these modules: ``build`` has to speak to it first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from shard_tools.cli import build, check, evaluate, finetune, look, rank, share, upgrade
from shard_tools.cli.arguments import PROGRAM
from sti.cli.arguments import Parser, program_parser
from sti.cli.program import Program

_EPILOG = f"""\
`{PROGRAM} COMMAND --help` explains a command. Packs are run with `sti run`.

What the commands need, besides NumPy:
  inspect, verify, share   nothing
  rank, evaluate           onnxruntime
  build, check             onnxruntime and the extra "build" (onnx, safetensors)
  upgrade                  the extra "build"
  finetune                 the extra "train" (onnx, safetensors, torch; a CPU build is enough)

A command that lacks a package says how to install it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; see ``Program.main``."""
    return _PROGRAM.main(argv)


def command() -> NoReturn:
    """``main`` as a process of its own; see ``Program.command``."""
    _PROGRAM.command()


def build_parser() -> Parser:
    """The parser of all commands."""
    parser, commands = program_parser(PROGRAM, "Make packs from checkpoints.", _EPILOG)
    finetune.add_command(commands)
    build.add_command(commands)
    check.add_command(commands)
    rank.add_command(commands)
    evaluate.add_command(commands)
    share.add_command(commands)
    upgrade.add_command(commands)
    look.add_commands(commands)
    return parser


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    return build_parser().parse_args(argv)


def _execute(args: argparse.Namespace) -> int | None:
    try:
        code: int | None = args.execute(args)
    except KeyboardInterrupt as stopped:
        if stopped.args:
            raise
        raise KeyboardInterrupt("nothing was left behind") from stopped
    return code


_PROGRAM = Program(PROGRAM, _parse, _execute)
