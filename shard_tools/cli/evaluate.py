"""``sti-shard evaluate``: the options, and where the answer goes.

In: parsed arguments. Out: the report on standard output, or in files.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shard_tools.cli.common import add_parser
from sti.errors import InputError
from sti.units import parse_size, parse_time

if TYPE_CHECKING:
    from shard_tools.evaluation.cells import Evaluation

FORMATS = ("md", "json", "csv", "svg")

_SUMMARY = "measure the accuracy and latency of plans, beside the baselines under the same limits"
_EXAMPLES = """\
examples:
  sti-shard evaluate intents.sti.safetensors --data val.tsv.gz --targets 5ms,10ms,20ms
  sti-shard evaluate intents.sti.safetensors --data val.tsv --targets 5ms,10ms --preload 0,256KB,1MB
  sti-shard evaluate intents.sti.safetensors --data val.tsv --targets 50ms,100ms \\
      --device paper-board -o board.md -o board.svg

DATA is a .tsv file with a header line (sentence, label; or sentence1, sentence2, label; or score
instead of label), or .jsonl with these members, gzipped or not. The pack must be ranked.

The baselines are the paper's: the model in memory, load then execute, and the layer pipeline at one
fidelity, each free to choose its submodel; and, besides, our own pipeline at one fidelity.
Plots need matplotlib: pip install 'sti[plot]'.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = add_parser(commands, "evaluate", _SUMMARY, _EXAMPLES, execute)
    command.add_argument("pack", type=Path, metavar="PACK", help="a ranked pack")
    command.add_argument(
        "--data", type=Path, required=True, metavar="DATA", help="labelled texts, for scoring only"
    )
    command.add_argument(
        "--targets", required=True, metavar="TIMES", help="latency targets, such as 20ms,40ms"
    )
    command.add_argument(
        "--preload", default="0", metavar="SIZES", help="preloads, such as 0,256KB,1MB (default 0)"
    )
    command.add_argument(
        "--device",
        metavar="FILE",
        help="simulate the clock of a device file, or of one that ships (paper-board)",
    )
    command.add_argument(
        "--out-of-scope",
        type=Path,
        metavar="FILE",
        help="texts none of the labels fits (rows like those of DATA; labels are not needed): how "
        "many are told, and how many of DATA wrongly",
    )
    command.add_argument(
        "--tokens", type=int, metavar="N", help="length of a text (default: the data's median)"
    )
    command.add_argument(
        "--runs", type=int, default=20, metavar="R", help="timed runs of each plan (default 20)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="S", help="of all that is drawn")
    command.add_argument(
        "--threads", type=int, metavar="N", help="compute threads (default: what suits the machine)"
    )
    command.add_argument(
        "--output", choices=FORMATS, help="format (default: as FILE's name ends, else md)"
    )
    command.add_argument(
        "-o",
        dest="files",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write to a file; can be given several times, for several formats",
    )
    command.add_argument("--quiet", action="store_true", help="no progress")


def execute(args: argparse.Namespace) -> int:
    """Evaluate, and write what was found."""
    from shard_tools.evaluation.evaluate import EvaluateOptions, evaluate
    from sti.storage.atomic_file import write_file

    options = EvaluateOptions(
        targets_s=tuple(parse_time(part, name="--targets") for part in _parts(args.targets)),
        preloads_bytes=tuple(parse_size(part, name="--preload") for part in _parts(args.preload)),
        device=args.device,
        out_of_scope=args.out_of_scope,
        tokens=args.tokens,
        runs=args.runs,
        seed=args.seed,
        threads=args.threads,
    )
    wanted = [(path, _format_of(path, args.output)) for path in args.files]
    _check_outputs(wanted, args.output)
    found = evaluate(args.pack, args.data, options, progress=False if args.quiet else None)
    for path, form in wanted:
        write_file(str(path), _render(found, form))
    if not wanted:
        print(_render(found, args.output or "md"), end="")
    return 0


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _format_of(path: Path, asked: str | None) -> str:
    """The format that is asked for, or that a file's name asks for."""
    form = path.suffix[1:].lower()
    if form in FORMATS and asked not in (None, form):
        raise InputError(f"{path}: its name asks for {form}, --output for {asked}; leave one out")
    if asked is None and form and form not in FORMATS:
        raise InputError(
            f"{path}: .{form} is none of the formats {', '.join(FORMATS)}; say which with --output"
        )
    return asked or form or "md"


def _check_outputs(wanted: list[tuple[Path, str]], output: str | None) -> None:
    """Find out what would fail at the end before the work begins."""
    if "svg" in (output, *(form for _, form in wanted)):
        from shard_tools.evaluation.plots import require_matplotlib

        require_matplotlib()
    for path, _ in wanted:
        if path.is_dir():
            raise InputError(f"{path}: is a directory; name a file in it")
        if not path.parent.is_dir():
            raise InputError(f"{path.parent}: no such directory; create it first")
        if not os.access(path.parent, os.W_OK):  # files are replaced as a whole
            raise InputError(f"{path.parent}: nothing can be written there; name another place")


def _render(found: Evaluation, form: str) -> str:
    from shard_tools.evaluation import report, report_data

    if form == "svg":
        from shard_tools.evaluation.plots import as_svg

        return as_svg(found)
    if form == "md":
        return report.as_markdown(found)
    return report_data.as_json(found) if form == "json" else report_data.as_csv(found)
