"""``sti-shard inspect`` and ``sti-shard verify``: what a pack holds, and whether it is sound."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shard_tools.cli.common import PROGRAM, add_json, add_parser, print_json

_INSPECT_EXAMPLES = """\
examples:
  sti-shard inspect minilm.sti.safetensors
  sti-shard inspect minilm.sti.safetensors --json | jq .bytes
"""
_VERIFY_EXAMPLES = """\
examples:
  sti-shard verify minilm.sti.safetensors
  sti-shard verify minilm.sti.safetensors --json && echo sound
"""


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    for name, summary, examples, execute in (
        ("inspect", "show what a pack holds", _INSPECT_EXAMPLES, _inspect),
        ("verify", "compare every checksum of a pack", _VERIFY_EXAMPLES, _verify),
    ):
        command = add_parser(commands, name, summary, examples, execute)
        command.add_argument("pack", type=Path, metavar="PACK", help="the pack")
        add_json(command)


def _inspect(args: argparse.Namespace) -> int:
    from shard_tools.inspection.pack_text import describe, render
    from sti.pack.pack_reader import PackReader

    with PackReader.open(args.pack) as reader:
        description, manifest = describe(reader), reader.manifest
    if args.json:
        print_json(description)
    else:
        print(render(description, manifest), end="")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from shard_tools.progress import Progress
    from sti.pack.verify import verify

    done = 0
    with Progress(1.0, shown=False if args.json else None) as line:

        def progress(now: int, total: int) -> None:
            nonlocal done
            line.step((now - done) / total, "comparing checksums")
            done = now

        report = verify(args.pack, progress)
    if args.json:
        faults = [{**asdict(fault), "text": str(fault)} for fault in report.faults]
        print_json(
            {
                "path": str(report.path),
                "good": report.good,
                "bytes": report.file_bytes,
                "checksums": report.checksums,
                "faults": faults,
            }
        )
    elif report.good:
        print(f"{args.pack}: sound ({report.checksums} checksums match)")
    else:
        for fault in report.faults:
            print(f"{args.pack}: damaged: {fault}")
    if not report.good and not args.json:
        print(
            f"{PROGRAM}: error: {args.pack}: {len(report.faults)} of {report.checksums} parts are "
            "damaged; fetch or build the pack again",
            file=sys.stderr,
        )
    return 0 if report.good else 2
