"""``sti-shard rank``: measure every shard's importance, and how good plans will be.

In: parsed arguments. Out: the ranked pack, and what was measured on standard output.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import monotonic
from typing import Any

from shard_tools.cli.arguments import PROGRAM, add_output, add_quiet, add_seed
from sti.cli import arguments
from sti.cli.program import notice, print_json
from sti.device.host import check_threads
from sti.errors import InputError
from sti.units import format_size, format_time

_EXAMPLES = """\
examples:
  sti-shard rank intents.sti.safetensors --data calibration.tsv
  sti-shard rank intents.sti.safetensors --data calibration.tsv -o ranked.sti.safetensors
  sti-shard rank intents.sti.safetensors --data calibration.tsv --out-of-scope others.tsv

Calibration data are labelled texts that the model was not trained on: a .tsv file with a header
line (sentence and label, or sentence1, sentence2 and label) or .jsonl, gzipped or not. At least
100 rows are needed; 1,000 are better. Without -o, PACK itself is replaced at the end. A ranking
that was interrupted continues where it stopped when the same command is run again.

Needs onnxruntime.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    summary = "measure importance and quality on calibration data, and add them to the pack"
    command = arguments.add_command(commands, "rank", summary, _EXAMPLES, execute=execute)
    command.add_argument("pack", type=Path, metavar="PACK", help="the pack to rank")
    command.add_argument(
        "--data", type=Path, required=True, metavar="FILE", help="calibration data"
    )
    add_output(command, "PACK2", "the pack to write (default: PACK, which is replaced)")
    command.add_argument(
        "--out-of-scope",
        type=Path,
        metavar="FILE",
        help="texts that none of the classifier's labels fits (rows like those of --data; labels "
        "are not needed); adds thresholds that reject such texts (default: none are added)",
    )
    command.add_argument(
        "--examples",
        type=int,
        default=1000,
        metavar="N",
        help="calibration texts to use, drawn at random (default: %(default)s)",
    )
    command.add_argument(
        "--measure",
        choices=("auto", "exhaustive", "proxy"),
        default="auto",
        help="exhaustive: lower each shard to every fidelity in turn; proxy: only whole blocks; "
        "auto: shards, until the gains stored in the pack rank the rest as well "
        "(default: %(default)s)",
    )
    add_seed(command)
    arguments.add_threads(command, "all cores")
    add_quiet(command)


def execute(args: argparse.Namespace) -> None:
    """Rank the pack, and describe it."""
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
            notice=lambda text: notice(text, PROGRAM),
        )
    except KeyboardInterrupt as stopped:
        kept = journal_path(output)
        if not kept.exists():
            raise
        raise KeyboardInterrupt(
            f"{kept} keeps what was measured; the same command continues from there"
        ) from stopped
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
