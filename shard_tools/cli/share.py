"""``sti-shard share``: a part of a pack, for one device of several.

In: parsed arguments. Out: the part, and a line or a JSON document about it on standard output.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from time import monotonic
from typing import Any

from shard_tools.cli.arguments import add_output, add_quiet
from sti.cli import arguments
from sti.cli.program import print_json
from sti.units import format_size, format_time

_EXAMPLES = """\
examples:
  sti-shard share minilm.sti.safetensors --layers 0-2 -o front.sti.safetensors
  sti-shard share minilm.sti.safetensors --layers 3-5 -o back.sti.safetensors
  sti-shard share front.sti.safetensors --layers 2 -o one.sti.safetensors

A part has the weights of its layers, and with layer 0 the token embeddings. It names the pack that
it comes from by the SHA-256 of its content, which stays what it is when the pack is ranked again,
and by its identity, to which plans refer. Every checksum of what is copied is compared on the way.
A part cannot be run alone. Needs nothing but NumPy.
"""

_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = arguments.add_command(
        commands, "share", "write a part of a pack, for one device", _EXAMPLES, execute=execute
    )
    command.add_argument("pack", type=Path, metavar="PACK", help="a pack, or a part of one")
    command.add_argument(
        "--layers",
        type=_layers,
        required=True,
        metavar="A-B",
        help="the layers of the part, counted from 0: a range, both ends included, or one number",
    )
    add_output(command, "PART", "the part to write", required=True)
    add_quiet(command)


def execute(args: argparse.Namespace) -> None:
    """Write the part, and describe it."""
    from shard_tools.packing.share import share
    from sti.pack.pack_reader import PackReader

    start = monotonic()
    quiet = args.quiet or args.json
    share(args.pack, args.output, *args.layers, progress=False if quiet else None)
    seconds = monotonic() - start
    with PackReader.open(args.output) as reader:
        part, manifest = reader.part, reader.manifest
        assert part is not None, "it was written as one"
        if args.json:
            print_json(
                {
                    "path": str(args.output),
                    "pack_id": reader.pack_id,
                    "part": part._asdict(),
                    "bytes": reader.file_bytes,
                    "seconds": round(seconds, 3),
                }
            )
        elif not args.quiet:
            print(
                f"{args.output}: {manifest.name}, {part.words} of {manifest.dimensions.layers}, "
                f"{format_size(reader.file_bytes)}, a part of pack {part.pack_id}, written in "
                f"{format_time(seconds)}"
            )


def _layers(text: str) -> tuple[int, int]:
    """``3`` or ``0-3`` as the first and the last; argparse turns the error into one of usage."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r:.80} is not one layer or one range such as 0-3: layers of a part follow one "
            "another"
        )
    first = int(found[1])
    last = first if found[2] is None else int(found[2])
    if last < first:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins")
    return first, last
