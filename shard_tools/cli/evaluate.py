"""``sti-shard evaluate``: the options, and where the report goes.

In: parsed arguments. Out: the report on standard output, or in files.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shard_tools.cli.arguments import add_quiet, add_seed
from sti.cli import arguments
from sti.cli.reports import deliver, destinations
from sti.units import parse_size, parse_time

if TYPE_CHECKING:
    from shard_tools.evaluation.cells import Evaluation

FORMATS = (*arguments.FORMATS, "svg")

_SUMMARY = "measure accuracy and latency of plans, beside baselines under the same limits"
_EXAMPLES = """\
examples:
  sti-shard evaluate intents.sti.safetensors --data val.tsv.gz --targets 5ms,10ms,20ms
  sti-shard evaluate intents.sti.safetensors --data val.tsv --targets 5ms,10ms --preload 0,256KB,1MB
  sti-shard evaluate intents.sti.safetensors --data val.tsv --targets 50ms,100ms \\
      --device paper-board -o board.md -o board.svg

DATA is a .tsv file with a header line, or .jsonl, gzipped or not. Its columns are sentence and
label, or sentence1, sentence2 and label; or score instead of label. The pack must be ranked.

The baselines are those of the paper: the whole model in memory, load then execute, and the layer
pipeline at one fidelity, each free to choose its submodel; and this engine's own pipeline at one
fidelity.

Needs onnxruntime.
"""


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = arguments.add_command(commands, "evaluate", _SUMMARY, _EXAMPLES, execute=execute)
    command.add_argument("pack", type=Path, metavar="PACK", help="a ranked pack")
    command.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DATA",
        help="labelled texts; used for scoring only",
    )
    command.add_argument(
        "--targets", required=True, metavar="TIMES", help="latency targets, such as 20ms,40ms"
    )
    command.add_argument(
        "--preload",
        default="0",
        metavar="SIZES",
        help="sizes of the preload buffer, such as 0,256KB,1MB (default: 0)",
    )
    command.add_argument(
        "--device",
        metavar="NAME|FILE",
        help="compute latencies for another machine instead of measuring them: a device that comes "
        "with STI (paper-board), or a file of its times (default: this machine, measured)",
    )
    command.add_argument(
        "--out-of-scope",
        type=Path,
        metavar="FILE",
        help="texts that none of the labels fits (rows like those of DATA; labels are not needed); "
        "the report then counts how many of them are recognised, and how many texts of DATA are "
        "taken for one (default: not counted)",
    )
    command.add_argument(
        "--tokens",
        type=int,
        metavar="N",
        help="tokens in a text that plans are made for (default: the median of DATA)",
    )
    command.add_argument(
        "--runs",
        type=int,
        default=20,
        metavar="R",
        help="timed runs of each plan (default: %(default)s)",
    )
    add_seed(command)
    arguments.add_threads(command)
    arguments.add_report(command, FORMATS)
    add_quiet(command, "show no progress")


def execute(args: argparse.Namespace) -> None:
    """Evaluate, and write what was found."""
    from shard_tools.evaluation.evaluate import EvaluateOptions, evaluate

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
    wanted = destinations(args, FORMATS)
    found = evaluate(args.pack, args.data, options, progress=False if args.quiet else None)
    deliver(wanted, lambda form: _render(found, form), quiet=args.quiet)


def _parts(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def _render(found: Evaluation, form: str) -> str:
    from shard_tools.evaluation import report, report_data

    if form == "svg":
        from shard_tools.evaluation.plots import as_svg

        return as_svg(found)
    if form == "md":
        return report.as_markdown(found)
    return report_data.as_json(found) if form == "json" else report_data.as_csv(found)
