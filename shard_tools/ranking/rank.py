"""``sti-shard rank``: measure importance and quality on calibration data, put them into the pack.

In: a pack, a file of labelled texts that training has not seen, options. Out: the pack again, its
gains, plane orders, submodels, quality and rejection measured through the engine's own graphs, with
notes on how far they can be trusted, and with the fidelities worth running that follow from them.
What has been measured is kept beside the output until all is done, so a job that is killed
continues where it stopped. Knows no architecture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shard_tools.measuring.forward import Forward, Precision, uniform_precision
from shard_tools.measuring.judge import ROWS, Judge
from shard_tools.packing.pack_writer import check_output
from shard_tools.packing.repack import ranked_groups, repack
from shard_tools.progress import Progress
from shard_tools.ranking.calibration import Calibration, load_calibration, load_out_of_scope
from shard_tools.ranking.gains import stored_gains
from shard_tools.ranking.importances import Importances, measure_importances, planned_steps
from shard_tools.ranking.journal import Journal
from shard_tools.ranking.qualities import PLANS, measure_quality, measure_rejection
from shard_tools.ranking.shard_losses import Bench, work
from shard_tools.ranking.submodels import (
    measure_sizes,
    metrics_of,
    trained_sizes,
    with_curve,
    worthwhile,
)
from sti.errors import StorageError
from sti.model.manifest import Manifest, Submodel
from sti.pack.pack_reader import PackReader
from sti.planning.staircase_making import make_staircases
from sti.version import __version__

Measure = Literal["auto", "exhaustive", "proxy"]

DEFAULT_EXAMPLES = 1000

_UNITS = {
    "classification": "divergence (KL, nats) of the answers from the full model's at {top} bits",
    "regression": "squared error against the full model at {top} bits over its variance",
}


@dataclass(frozen=True, slots=True)
class RankOptions:
    """What a user may choose."""

    out_of_scope: Path | None = None
    examples: int = DEFAULT_EXAMPLES
    measure: Measure = "auto"
    seed: int = 0
    threads: int = 1


def journal_path(output: Path) -> Path:
    """Where the progress of ranking into ``output`` is kept."""
    return output.with_name(f"{output.name}.ranking")


def rank(
    pack: Path,
    data: Path,
    output: Path,
    options: RankOptions,
    *,
    progress: bool | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Rank a pack.

    Args:
        pack: the pack; only read, unless it is ``output``, too.
        data: calibration rows.
        output: the ranked pack; replaced when all is done, untouched otherwise.
        options: the user's choices.
        progress: True or False shows or hides the progress line; None shows it on a terminal.
        notice: called with each message for the user.

    Returns:
        The manifest as written.

    Raises:
        InputError: data or options cannot be used, or the pack has no classes or values to rank by.
        PackError: the pack cannot be used.
        StorageError: reading or writing failed.
    """
    with PackReader.open_whole(pack) as reader:
        manifest = reader.manifest
        read = [data, *filter(None, [options.out_of_scope])]
        check_output(output, reader.file_bytes, apart=read)
        calibration = load_calibration(
            data, manifest, pack, examples=options.examples, seed=options.seed
        )
        out_of_scope = load_out_of_scope(options.out_of_scope, manifest)
        sizes = trained_sizes(manifest, where=str(pack))
        key = _key(reader, calibration, out_of_scope, options)
        journal = Journal(journal_path(output), key, (ROWS, len(calibration.texts)))
        if journal.notice:
            notice(journal.notice)
        if manifest.rejection is not None and out_of_scope is None:
            notice(
                "without --out-of-scope the pack's thresholds for texts out of scope are dropped"
            )
        if "ranking" in manifest.notes and options.measure != "exhaustive":
            notice(
                f"{pack} was ranked before: the gains it has come from there, and what is not "
                "measured follows them; rank the pack as it was built, or use --measure exhaustive"
            )
        try:
            total = _work(manifest, sizes, options, journal)
            with (
                Forward(reader, threads=options.threads) as forward,
                Progress(total, shown=progress) as line,
            ):
                bench = _bench(forward, calibration, journal, line)
                ranked = _rank(bench, sizes, calibration, out_of_scope, options)
            found = make_staircases(ranked)
            written = repack(reader, output, ranked, staircases=found.to_bytes(ranked))
        except BaseException:
            with suppress(StorageError):  # what failed before is what the user is told
                journal.save()
            raise
        journal.remove()
    return written


def _key(
    reader: PackReader,
    calibration: Calibration,
    out_of_scope: Calibration | None,
    options: RankOptions,
) -> str:
    """Everything that what is measured depends on. Threads do not count: results are the same."""
    kept = asdict(options) | {"threads": 0}
    kept["out_of_scope"] = out_of_scope.checksum if out_of_scope else None
    parts = [__version__, reader.pack_id, calibration.checksum, kept]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _base(manifest: Manifest) -> Precision:
    """The full model at the top fidelity."""
    return uniform_precision(manifest, manifest.submodels[0], manifest.ladder[-1])


def _work(
    manifest: Manifest, sizes: Sequence[Submodel], options: RankOptions, journal: Journal
) -> float:
    """The size of what is left to measure, for the progress line."""
    steps = dict(planned_steps(_base(manifest), manifest.ladder, options.measure))
    total = sum(amount for name, amount in steps.items() if name not in journal)
    uniform = len(manifest.ladder) * sum(work(uniform_precision(manifest, s, 0)) for s in sizes)
    return total + uniform * (1.0 + PLANS / (len(manifest.ladder) * len(sizes)))


def _bench(forward: Forward, calibration: Calibration, journal: Journal, line: Progress) -> Bench:
    """The pack with its calibration texts, and the full model's answers to compare with."""
    manifest = forward.manifest
    batches, base = forward.batches(calibration.texts), _base(manifest)
    regression = manifest.task == "regression"
    judge = Judge(forward.logits(batches, base), calibration.labels, regression=regression)
    return Bench(forward, batches, judge, base, journal, line)


def _rank(
    bench: Bench,
    sizes: Sequence[Submodel],
    calibration: Calibration,
    out_of_scope: Calibration | None,
    options: RankOptions,
) -> Manifest:
    """The manifest of the ranked pack; its embedding table and residents are the pack's own."""
    manifest = bench.forward.manifest
    found = measure_importances(
        bench, manifest, stored_gains(manifest), options.measure, seed=options.seed
    )
    ranked = manifest._replace(groups=ranked_groups(manifest.groups, found.gains))
    measured = measure_sizes(bench, ranked, sizes)
    kept = worthwhile(measured, slices=manifest.dimensions.slices)
    ranked = ranked._replace(submodels=tuple(with_curve(item, ranked) for item in kept))
    plans, ranked, quality_notes = measure_quality(bench, ranked, kept, seed=options.seed)
    notes = _notes(manifest, found, calibration, options)
    notes["quality"] = quality_notes | {
        "submodels_measured": len(measured),
        "measured": metrics_of(measured, manifest.ladder, bench.judge.value),
    }
    if out_of_scope is None:
        return ranked._replace(rejection=None, notes=notes)
    ranked, notes["rejection"] = measure_rejection(bench, ranked, plans, out_of_scope)
    return ranked._replace(notes=notes)


def _notes(
    manifest: Manifest, found: Importances, calibration: Calibration, options: RankOptions
) -> dict[str, Any]:
    unit = _UNITS[manifest.task].format(top=manifest.ladder[-1])
    about = {
        "examples": len(calibration.texts),
        "data": calibration.path.name,
        "checksum": calibration.checksum,
        "seed": options.seed,
        "loss": unit,
    }
    kept = {key: value for key, value in manifest.notes.items() if key != "rejection"}
    return kept | {
        "importance": f"rise of {unit} when one shard of the full model is lowered",
        "calibration": calibration.path.name,
        "ranking": about | found.notes,
    }
