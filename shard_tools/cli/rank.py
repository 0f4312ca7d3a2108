"""``sti-shard rank``: measure what every shard is worth, and how good plans will be."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from shard_tools.cli.common import PROGRAM, add_json, add_parser, print_json
from sti.device.host import check_threads
from sti.errors import InputError
from sti.units import format_size, format_time

_EXAMPLES = """\
examples:
  sti-shard rank intents.sti.safetensors --data calibration.tsv
  sti-shard rank intents.sti.safetensors --data calibration.tsv -o ranked.sti.safetensors
  sti-shard rank intents.sti.safetensors --data calibration.tsv --out-of-scope others.tsv

Calibration data are labelled texts that training has not seen: a .tsv with a header (sentence or
sentence1 and sentence2, then label) or .jsonl, gzipped or not; at least 100, better 1,000. Without
-o the pack itself is replaced when all is done. A ranking that is stopped goes on from where it was
when the same command is given again.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    summary = "measure importance and quality on calibration data, and put them into the pack"
    command = add_parser(commands, "rank", summary, _EXAMPLES, execute)
    command.add_argument("pack", type=Path, metavar="PACK", help="the pack")
    command.add_argument(
        "--data", type=Path, required=True, metavar="FILE", help="calibration data"
    )
    command.add_argument(
        "-o", "--output", type=Path, metavar="PACK2", help="the pack to write (default: PACK)"
    )
    command.add_argument(
        "--out-of-scope",
        type=Path,
        metavar="FILE",
        help="texts that are none of the classifier's business (rows like those of --data; "
        "labels are not needed): adds thresholds that refuse them",
    )
    command.add_argument(
        "--examples",
        type=int,
        default=1000,
        metavar="N",
        help="calibration texts to use, drawn at random (default 1000)",
    )
    command.add_argument(
        "--measure",
        choices=("auto", "exhaustive", "proxy"),
        default="auto",
        help="lower shards one by one to every fidelity (exhaustive), only whole blocks (proxy), "
        "or shards until the pack's gains rank the rest as well (auto, the default)",
    )
    command.add_argument("--seed", type=int, default=0, metavar="S", help="of all that is drawn")
    command.add_argument(
        "--threads", type=int, metavar="N", help="compute threads (default: all cores)"
    )
    command.add_argument("--quiet", action="store_true", help="no progress and no summary")
    add_json(command)


def execute(args: argparse.Namespace) -> int:
    """Rank the pack and say what came of it."""
    from shard_tools.ranking.rank import RankOptions, journal_path, rank
    from sti.device.host import core_count
    from sti.pack.pack_reader import PackReader

    check_threads(args.threads, name="--threads")
    if args.seed < 0:
        raise InputError(f"--seed must be at least 0; found {args.seed}")
    options = RankOptions(
        out_of_scope=args.out_of_scope,
        examples=args.examples,
        measure=args.measure,
        seed=args.seed,
        threads=args.threads or core_count(),
    )
    output = args.pack if args.output is None else args.output
    start = monotonic()
    try:
        rank(
            args.pack,
            args.data,
            output,
            options,
            progress=False if args.quiet or args.json else None,
            notice=lambda text: print(f"{PROGRAM}: {text}", file=sys.stderr),
        )
    except KeyboardInterrupt:
        kept = journal_path(output)
        if not kept.exists():
            raise
        print(
            f"{PROGRAM}: interrupted; {kept} keeps what was measured, the same command goes on "
            "from there",
            file=sys.stderr,
        )
        return 130
    seconds = monotonic() - start
    with PackReader.open(output) as reader:
        if args.json:
            notes = reader.manifest.notes
            document: dict[str, Any] = {
                "path": str(output),
                "pack_id": reader.pack_id,
                "bytes": reader.file_bytes,
                "seconds": round(seconds, 3),
                "submodels": len(reader.manifest.submodels),
            }
            shown = ("ranking", "quality", "rejection")
            document |= {key: notes[key] for key in shown if key in notes}
            print_json(document)
        elif not args.quiet:
            from shard_tools.inspection.ranking_text import render_ranking

            size, took = format_size(reader.file_bytes), format_time(seconds)
            print(f"{output}: {reader.manifest.name}, {size}, ranked in {took}")
            print(render_ranking(reader.manifest), end="")
    return 0
