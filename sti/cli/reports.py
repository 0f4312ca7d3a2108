"""Where a report goes and in which format: ``--format``, ``-o FILE`` and ``--json``.

In: the options of ``add_report``, and a function that renders the report in a format. Out: files,
or standard output. Output paths are checked before the work begins.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sti.cli.program import say
from sti.errors import InputError
from sti.storage.atomic_file import write_file


@dataclass(frozen=True, slots=True)
class Destination:
    """One place for a report."""

    format: str
    path: Path | None = None
    """None: standard output."""


def destinations(args: argparse.Namespace, formats: Sequence[str]) -> list[Destination]:
    """Where the report is wanted; JSON on standard output comes last.

    Args:
        args: has ``pack``, ``outputs``, ``format`` and ``json``.
        formats: those that can be asked for; the first is the default.

    Raises:
        InputError: a file's name and ``--format`` disagree, two formats are to go to standard
            output, or a file cannot be written there.
    """
    fallback = "json" if args.json else formats[0]
    found = []
    for path in map(Path, args.outputs):
        form = _ending(path, args.format, formats) or args.format or fallback
        check_writable(path, apart=args.pack)
        found.append(Destination(form, path))
    if args.json:
        if not found and args.format not in (None, "json"):
            raise InputError(
                f"--json and --format {args.format} exclude each other on standard output; write "
                "one of them to a file with -o"
            )
        found.append(Destination("json"))
    return found or [Destination(args.format or fallback)]


def deliver(
    wanted: Sequence[Destination], render: Callable[[str], str], *, quiet: bool = False
) -> None:
    """Write a report everywhere it is wanted.

    Args:
        render: the report in a format, as text that ends with a newline.
        quiet: say nothing about files.

    Raises:
        InputError, StorageError: a file cannot be written.
    """
    for item in wanted:
        if item.path is None:
            print(render(item.format), end="")
        else:
            write_file(str(item.path), render(item.format))
            if not quiet:
                say(f"saved to {item.path}")


def _ending(path: Path, asked: str | None, formats: Sequence[str]) -> str | None:
    """The format a file's name ends with; None where it has no ending, or the format is told."""
    form = path.suffix[1:].lower()
    if form in formats:
        if asked not in (None, form):
            raise InputError(
                f"{path}: its name asks for {form}, --format for {asked}; leave one out"
            )
        return form
    if asked is None and form:
        raise InputError(
            f"{path}: .{form} is none of the formats {', '.join(formats)}; name one with --format"
        )
    return None


def check_writable(path: Path, *, apart: Path | str) -> None:
    """Refuse a path at which no file can be written, before the work begins.

    Args:
        apart: the pack that is read, which must stay.

    Raises:
        InputError: it is ``-``, the pack or a directory, or its directory is missing or
            write-protected.
    """
    if str(path) == "-":
        raise InputError("-: names no file; leave the option out for standard output")
    if path.is_dir():
        raise InputError(f"{path}: is a directory; name a file in it")
    if path.exists() and not path.is_file():
        return  # a pipe or a device
    if path.exists() and os.path.exists(apart) and path.samefile(apart):
        raise InputError(f"{path}: is the pack, which would be lost; name another file")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: no such directory; create it first")
    if not os.access(path.parent, os.W_OK):  # files are replaced as a whole
        raise InputError(f"{path.parent}: nothing can be written there; name another place")
