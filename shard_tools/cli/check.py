"""``sti-shard check``: a pack beside the float checkpoint that it was made of.

In: parsed arguments. Out: how far their answers are apart, on standard output; exit code 1 where
that is further than allowed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shard_tools.cli.arguments import add_quiet
from sti.cli import arguments
from sti.cli.program import print_json
from sti.device.host import check_threads
from sti.errors import InputError

if TYPE_CHECKING:
    from shard_tools.measuring.forward import Precision
    from sti.model.manifest import Manifest

_EXAMPLES = """\
examples:
  sti-shard check minilm.sti.safetensors ./all-MiniLM-L6-v2 --texts lines.txt
  sti-shard check topics.sti.safetensors ./my-classifier --texts lines.txt --fidelity 4
  sti-shard check minilm.sti.safetensors ./all-MiniLM-L6-v2 --texts lines.txt --least-cosine .99

FILE holds one text a line; for classifiers and regressions, a TAB parts the two texts of a pair.
No prompt is put in front: where the model has one, write it into the lines.
The checkpoint is computed in float32, so a large one takes a while. With --least-cosine or
--least-agreement the exit code is 1 where the mean is below.

Needs onnxruntime and the extra "build" (onnx, safetensors).
"""
_MOST_BYTES = 1 << 26
_SHOWN = 60


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = arguments.add_command(
        commands,
        "check",
        "compare a pack's answers with those of its float checkpoint",
        _EXAMPLES,
        execute=execute,
        extra="build",
    )
    command.add_argument("pack", type=Path, metavar="PACK", help="the pack")
    command.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="what it was built from"
    )
    command.add_argument(
        "--texts", type=Path, required=True, metavar="FILE", help="texts to answer, one a line"
    )
    pinned = command.add_mutually_exclusive_group()
    pinned.add_argument(
        "--fidelity",
        type=arguments.count,
        metavar="BITS",
        help="bits per weight to run the pack at (default: the most that it has)",
    )
    pinned.add_argument(
        "--plan", type=Path, metavar="FILE", help="run the pack by a plan that `sti plan` saved"
    )
    command.add_argument(
        "--worst", type=arguments.count, default=5, metavar="N", help="texts to show (default: 5)"
    )
    for name in ("cosine", "agreement"):
        command.add_argument(
            f"--least-{name}",
            type=_share,
            metavar="SHARE",
            help=f"exit with code 1 if the mean {name} is below this, such as .99",
        )
    arguments.add_threads(command, "all cores")
    add_quiet(command)


def execute(args: argparse.Namespace) -> int:
    """Compare, and say what was found."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from shard_tools.measuring.comparison import compare, comparison_members
    from sti.device.host import core_count

    check_threads(args.threads, name="--threads")
    found = compare(
        args.pack,
        args.checkpoint,
        _texts(args.texts, args.pack),
        lambda manifest, pack_id: _precision(args, manifest, pack_id),
        threads=args.threads or core_count(),
        progress=False if args.quiet or args.json else None,
    )
    if args.least_agreement is not None and found.agreement is None:
        raise InputError(f"--least-agreement: a pack for {found.task} has no labels to agree on")
    good = found.cosine >= (args.least_cosine or -1.0)
    good = good and (found.agreement or 0.0) >= (args.least_agreement or 0.0)
    if args.json:
        print_json({"good": good, **comparison_members(found, args.worst)})
    elif not args.quiet:
        agreement = "" if found.agreement is None else f", {found.agreement:.1%} agree"
        cut = f", {found.truncated} cut" if found.truncated else ""
        print(
            f"{args.pack}: {len(found.texts)} texts{cut}: cosine {found.cosine:.5f} to the float "
            f"model, of the worst {found.least_cosine:.5f}{agreement}, largest difference "
            f"{found.difference:.4f}"
        )
        for item in found.worst(args.worst):
            text = item.text if isinstance(item.text, str) else " | ".join(item.text)
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
            other = ", other answer" if item.agrees is False else ""
            print(f"  line {item.line}: {item.cosine:.5f}{other}  {shown}")
    return 0 if good else 1


def _precision(args: argparse.Namespace, manifest: Manifest, pack_id: str) -> Precision:
    """What of the pack is run."""
    from shard_tools.measuring.forward import precision_of, uniform_precision
    from sti.engine.pinned_plan import read_plan

    if args.plan is not None:
        return precision_of(read_plan(args.plan, manifest, pack_id), manifest)
    bits = args.fidelity or manifest.ladder[-1]
    if bits not in manifest.ladder:
        known = ", ".join(map(str, manifest.ladder))
        raise InputError(f"--fidelity {bits} is not in the pack; it has {known}")
    full = max(manifest.submodels, key=lambda item: (item.depth, item.width))
    return uniform_precision(manifest, full, bits)


def _texts(path: Path, pack: Path) -> list[tuple[int, str | tuple[str, str]]]:
    """The texts of a file and their lines; pairs where the pack's task takes them."""
    from shard_tools.packing.calibration_text import text_lines
    from sti.pack.pack_reader import PackReader
    from sti.storage.plain_files import read_plain

    try:
        raw = read_plain(path, _MOST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    with PackReader.open_whole(pack) as reader:
        manifest = reader.manifest
        pairs = manifest.takes_pairs and manifest.task != "embedding"
    found: list[tuple[int, str | tuple[str, str]]] = []
    for line, text in text_lines(raw, str(path)):
        first, tab, second = text.partition("\t")
        found.append((line, (first, second) if pairs and tab else text))
    if not found:
        raise InputError(f"{path}: holds no text; give one text a line")
    return found


def _share(text: str) -> float:
    """A number from 0 to 1; argparse turns the error into one of usage."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1, such as .99")
    return value
