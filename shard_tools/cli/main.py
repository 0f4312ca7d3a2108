"""The command line of the offline tool: ``sti-shard``.

In: arguments. Out: answers on standard output, messages on standard error, an exit code: 0, 1 for
a failure, 2 for bad usage, bad input (a damaged pack included) or storage that fails, 130 for
Ctrl-C.
Knows which commands there are, not what they do: each lives in a module of its own. NumPy comes in
with the commands, not with these modules: ``build`` has to speak to it first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from shard_tools.cli import build, evaluate, finetune, look, rank
from shard_tools.cli.common import PROGRAM
from sti.cli.stdout import output_failed
from sti.errors import StiError


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
    finetune.add_command(commands)
    build.add_command(commands)
    rank.add_command(commands)
    evaluate.add_command(commands)
    look.add_commands(commands)
    return parser
