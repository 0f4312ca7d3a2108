"""``sti devices``: make the keys by which devices know each other.

In: parsed arguments. Out: a folder with keys, and what is to be copied where.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sti.cli.program import print_json
from sti.errors import InputError
from sti.exchange.zeromq.keys import MadeKeys, make_keys
from sti.planning.plan import LOCAL
from sti.report.wording import counted


def execute(args: argparse.Namespace) -> None:
    """Make keys for this machine and for the devices that are named."""
    folder = Path(args.keys)
    if LOCAL in args.names:
        raise InputError(f"{LOCAL}: controllers call themselves that; choose another name")
    made = make_keys(folder, args.names)
    if args.json:
        copy = {name: str(path) for name, path in made.copy.items()}
        print_json({"keys": str(folder), "new": list(made.new), "copy": copy})
        return
    print(_told(folder, made))


def _told(folder: Path, made: MadeKeys) -> str:
    new = f"new: {', '.join(made.new)}" if made.new else "none is new"
    lines = [
        f"{folder} holds this machine's keys ({counted(len(made.new), 'device')} added; {new})"
    ]
    lines += [f"copy {path} to {name}, for its --keys" for name, path in made.copy.items()]
    if made.copy:
        lines.append("whoever has a device's folder is that device: copy it over a safe way")
    return "\n".join(lines)
