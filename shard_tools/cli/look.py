"""``sti-shard inspect`` and ``sti-shard verify``: what a pack holds, and whether it is sound.

In: parsed arguments. Out: a description or a verdict on standard output, as text or JSON.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from shard_tools.cli.arguments import PROGRAM
from sti.cli.arguments import add_command, add_pack
from sti.cli.program import print_json, tell_failure
from sti.report.wording import counted

_INSPECT_EXAMPLES = """\
examples:
  sti-shard inspect minilm.sti.safetensors
  sti-shard inspect minilm.sti.safetensors --json | jq .bytes

Needs nothing but NumPy.
"""
_VERIFY_EXAMPLES = """\
examples:
  sti-shard verify minilm.sti.safetensors
  sti-shard verify minilm.sti.safetensors --json && echo sound
  sti-shard verify minilm.sti.safetensors --sha256 "$(cut -d' ' -f1 minilm.sha256)"

Checksums show damage. Whoever forges a pack can make its checksums match: compare the SHA-256 of
the file with the one its publisher states, as sha256sum prints it. The exit code is 0 for a sound
pack, the one that --sha256 names, and 2 for any other. Needs nothing but NumPy.
"""

_DIGITS = 64


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    for name, summary, examples, execute in (
        ("inspect", "show what a pack holds", _INSPECT_EXAMPLES, _inspect),
        ("verify", "check every checksum of a pack", _VERIFY_EXAMPLES, _verify),
    ):
        command = add_command(commands, name, summary, examples, execute=execute)
        add_pack(command)
        if execute is _verify:
            command.add_argument(
                "--sha256",
                type=_sha256,
                metavar="DIGITS",
                help="what the SHA-256 of the file must be, as its publisher states it",
            )


def _sha256(text: str) -> str:
    digits = text.lower()
    if len(digits) != _DIGITS or set(digits) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not {_DIGITS} hexadecimal digits")
    return digits


def _inspect(args: argparse.Namespace) -> None:
    from shard_tools.inspection.pack_text import describe, render
    from sti.pack.pack_reader import PackReader

    with PackReader.open(args.pack) as reader:
        description, manifest = describe(reader), reader.manifest
    if args.json:
        print_json(description)
    else:
        print(render(description, manifest), end="")


def _verify(args: argparse.Namespace) -> int:
    from shard_tools.progress import Progress
    from sti.errors import PackCorruptError
    from sti.pack.verify import verify
    from sti.report.json_document import error_members

    done = 0
    with Progress(1.0, shown=False if args.json else None) as line:

        def progress(now: int, total: int) -> None:
            nonlocal done
            line.step((now - done) / total, "checking checksums")
            done = now

        report = verify(args.pack, progress)
    failure = None
    if not report.good:
        failure = PackCorruptError(
            f"{args.pack}: damaged in {counted(len(report.damage), 'place')}, as listed; fetch or "
            "build the pack again"
        )
    elif args.sha256 not in (None, report.sha256):
        failure = PackCorruptError(
            f"{args.pack}: sound, but another file than asked for: its SHA-256 is {report.sha256}, "
            f"not {args.sha256}; fetch it again from its publisher"
        )
    if args.json:
        damage = [{**asdict(item), "text": str(item)} for item in report.damage]
        document = {
            "path": str(report.path),
            "part": None if report.part is None else report.part._asdict(),
            "good": failure is None,
            "bytes": report.file_bytes,
            "checksums": report.checksums,
            "sha256": report.sha256,
            "faults": damage,
        }
        if failure is not None:
            document |= error_members(failure, str(failure), failure.exit_code)
        print_json(document)
    elif failure is None:
        print(f"{args.pack}: sound ({report.checksums} checksums match)")
        if report.part is not None:
            print(f"a part: {report.part.words}, of pack {report.part.pack_id}")
        print(f"SHA-256 {report.sha256}")
    else:
        for item in report.damage:
            print(f"{args.pack}: damaged: {item}")
    return tell_failure(failure, f"{PROGRAM} verify")
