"""``sti-shard upgrade``: a pack of an older format in the format of this release.

In: parsed arguments. Out: the pack, and a line or a JSON document about it on standard output.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import monotonic
from typing import Any

from shard_tools.cli.arguments import add_output, add_quiet
from sti.cli import arguments
from sti.cli.program import print_json
from sti.units import format_size, format_time

_EXAMPLES = """\
examples:
  sti-shard upgrade minilm-old.sti.safetensors -o minilm.sti.safetensors
  sti-shard upgrade minilm.sti.safetensors -o minilm.sti.safetensors   # replaced when all is well

The checkpoint is not needed. Weights, token embeddings, rankings and measurements stay what they
are. Of a large model in format 1 answers may differ slightly: a block is computed in slice groups,
each of which rounds its own activations. Every checksum of the old pack is compared on the way. The
new pack has another identity, so that plans and device profiles made for the old one do not fit it.

Needs the extra "build" (onnx), to make the graphs again.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = arguments.add_command(
        commands,
        "upgrade",
        "rewrite a pack of an older format",
        _EXAMPLES,
        execute=execute,
        extra="build",
    )
    command.add_argument(
        "pack", type=Path, metavar="OLD", help="a pack of format 1, or of an earlier 2"
    )
    add_output(command, "NEW", "the pack to write; may be OLD itself", required=True)
    add_quiet(command)


def execute(args: argparse.Namespace) -> None:
    """Rewrite the pack, and describe it."""
    from shard_tools.packing.upgrade import upgrade
    from sti.model.manifest import FORMAT_VERSION
    from sti.pack.pack_reader import PackReader

    start = monotonic()
    upgrade(args.pack, args.output, progress=False if args.quiet else None)
    seconds = monotonic() - start
    with PackReader.open(args.output) as reader:
        manifest = reader.manifest
        groups = {kind.name: list(kind.groups) for kind in manifest.kinds}
        if args.json:
            print_json(
                {
                    "path": str(args.output),
                    "pack_id": reader.pack_id,
                    "format": FORMAT_VERSION,
                    "upgraded": manifest.notes["upgraded"],
                    "groups": groups,
                    "bytes": reader.file_bytes,
                    "seconds": round(seconds, 3),
                }
            )
        elif not args.quiet:
            cut = ", ".join(f"{kind} {' + '.join(map(str, each))}" for kind, each in groups.items())
            print(
                f"{args.output}: {manifest.name}, format {FORMAT_VERSION}, slice groups {cut}, "
                f"{format_size(reader.file_bytes)}, rewritten in {format_time(seconds)}"
            )
