"""Configurations of public checkpoints, scaled down: built and equal, or refused by name.

    python -m benchmarks.checkpoint_configs [--rows built,refused] [--only TEXT ...] [--keep DIR]

Each is the configuration of a checkpoint that people have, or a variant of one, with random
weights, few layers and few words; transformers makes it, and its files are put as people have them.
One that is supported is built into a pack, which answers texts at 8 bits through the public API. Of
its answers are compared with those of transformers, or of sentence-transformers where it has
modules: the ids of tokens, which must be the same; the float reference, within 1e-4; and the
pack's vectors, whose cosine must be .995, or its scores by label, each within .05. One that is not
supported must be refused in one line that names what is not. Token embeddings and positions are
such as packs can hold. Needs torch, transformers and sentence-transformers. Exit code 1 where one
differs.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks import common
from benchmarks.checkpoint_config_cases import Case
from benchmarks.checkpoint_config_refused import REFUSED
from benchmarks.checkpoint_config_supported import SUPPORTED
from benchmarks.common import Column, Report, Table, at_least, at_most
from benchmarks.rows import tell
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.measuring.float_answers import float_states
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.source import read_source
from shard_tools.progress import Progress
from sti.arrays import Float32Array
from sti.engine.engine import Engine
from sti.engine.results import Result
from sti.errors import StiError, StiWarning
from sti.text.encoding import Encoding, Text

if TYPE_CHECKING:
    from benchmarks.checkpoint_config_answers import Answers

TEXTS: tuple[str, ...] = (
    "The dog runs under the table, twice.",
    "Éléphants and CAFÉS über alles; naïve Straße",
    "中文 and words, don't you think? 3.5%",
    "  spaces\tand\nlines ",
    "xylophones & zygotes!",
    "a long text that is cut " * 9 + "at its end",
)
PAIRS: tuple[tuple[str, str], ...] = tuple(
    (first, second) for first, second in zip(TEXTS, TEXTS[1:] + TEXTS[:1], strict=True)
)
PARTS = {"built": SUPPORTED, "refused": REFUSED}
FLOAT_LIMIT, LEAST_COSINE, SCORE_LIMIT = 1e-4, 0.995, 0.05
LEAST_CONFIGS = 60


class Found(NamedTuple):
    """What became of a configuration."""

    name: str
    verdict: str
    """``equal``, ``refused``, or what is wrong."""
    float_difference: float | None = None
    cosine: float | None = None
    score_difference: float | None = None
    told: str = ""
    """The refusal."""

    @property
    def right(self) -> bool:
        """Whether it is as it has to be."""
        return self.verdict in ("equal", "refused")


def measure(case: Case, folder: Path, seed: int) -> Found:
    """Make, build, answer, compare."""
    from benchmarks.checkpoint_config_answers import answered
    from benchmarks.checkpoint_config_files import write_checkpoint

    write_checkpoint(case, folder, seed)
    texts: Sequence[Text] = PAIRS if case.pairs else TEXTS
    pack = folder / "pack.sti.safetensors"
    try:
        build(folder, pack, BuildOptions(), progress=False)
    except StiError as error:
        return refusal(case, str(error).replace(str(folder), "DIR"))
    if case.refused:
        return Found(case.name, f"built, though {case.refused} is not supported")
    expected = answered(case, folder, texts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StiWarning)  # texts that are cut
        with Engine.open(pack, fidelity=8, history=False) as engine:
            encodings = engine.tokenize(texts)
            results = [engine.run([text]) for text in texts]
    for text, found, ids in zip(texts, encodings, expected.ids, strict=True):
        if found.ids.tolist() != ids:
            return Found(case.name, f"other tokens: {text!r:.30}: {found.ids.tolist()} for {ids}")
    for found, types in zip(encodings, expected.types or (), strict=False):
        if found.type_ids.tolist() != types:
            return Found(case.name, "other types of tokens")
    floats = _float_answers(folder, encodings)
    off = max(float(np.abs(a - b).max()) for a, b in zip(floats, expected.raw, strict=True))
    return _verdict(Found(case.name, "equal", off), results, expected)


def _verdict(found: Found, results: Sequence[Result], expected: Answers) -> Found:
    """With what the pack answers, and what it is."""
    if results[0].task == "embedding":
        pairs = zip(results, expected.raw, strict=True)
        found = found._replace(cosine=min(_cosine(a.embeddings[0], b) for a, b in pairs))
    elif results[0].task == "tagging":
        pairs = zip(results, expected.raw, strict=True)
        apart = [np.abs(_shares(a.token_logits[0]) - _shares(b)).max() for a, b in pairs]
        found = found._replace(score_difference=float(max(apart)))
    else:
        scores = [_scores(result) for result in results]
        if any(set(a) != set(b) for a, b in zip(scores, expected.scores, strict=True)):
            labels = set(expected.scores[0])
            return found._replace(verdict=f"other labels: {set(scores[0])} for {labels}")
        pairs = zip(scores, expected.scores, strict=True)
        worst = max(abs(a[name] - b[name]) for a, b in pairs for name in b)
        found = found._replace(score_difference=worst)
    if (found.float_difference or 0) > FLOAT_LIMIT:
        return found._replace(verdict="another float answer")
    if (found.cosine or 1) < LEAST_COSINE:
        return found._replace(verdict="another answer")
    if (found.score_difference or 0) > SCORE_LIMIT:
        return found._replace(verdict="other scores")
    return found


def refusal(case: Case, told: str) -> Found:
    """What a refusal is worth."""
    if not case.refused:
        return Found(case.name, "refused, though supported", told=told)
    if case.refused not in told or "\n" in told:
        return Found(case.name, f"the refusal does not name {case.refused}", told=told)
    return Found(case.name, "refused", told=told)


def _float_answers(folder: Path, encodings: Sequence[Encoding]) -> list[Float32Array]:
    """The float reference's, before any activation."""
    with Checkpoint(folder) as checkpoint, Progress(1, shown=False) as line:
        source = read_source(checkpoint, BuildOptions())
        residents = source.model.residents(source.tokenizer.max_tokens)
        states = float_states(source.model, residents, encodings, line)
        found = [source.model.answer(state, [len(state)], residents) for state in states]
    return [rows if source.model.task == "tagging" else rows[0] for rows in found]


def _scores(result: Result) -> dict[str, float]:
    if result.task == "regression":
        return {value.name: value.value for value in result.values[0]}
    return {label.name: label.score for label in result.classes[0]}


def _shares(logits: Float32Array) -> Float32Array:
    """Scores of each token's labels."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def _cosine(a: Float32Array, b: Float32Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def report_of(found: Sequence[Found]) -> Report:
    """The tables."""
    built = [item for item in found if item.float_difference is not None]
    limits = Table("Configurations of checkpoints", common.LIMITS)
    rows = [
        at_least("configurations", len(found), LEAST_CONFIGS),
        at_most("built and unequal, or refused in other words", _wrong(found), 0),
        at_most("float reference", max((x.float_difference or 0 for x in built), default=0), 1e-4),
        at_least("cosine at 8 bits", min((x.cosine or 1 for x in built), default=1), LEAST_COSINE),
        at_most("scores", max((x.score_difference or 0 for x in built), default=0), SCORE_LIMIT),
    ]
    limits.rows.extend(rows)
    columns = (
        Column("configuration"),
        Column("verdict"),
        Column("float", ".0e"),
        Column("cosine", ".4f"),
        Column("scores", ".3f"),
    )
    cells = [(x.name, x.verdict, x.float_difference, x.cosine, x.score_difference) for x in found]
    table = Table("Built, beside transformers", columns)
    table.rows.extend(row for row, item in zip(cells, found, strict=True) if not item.told)
    refusals = Table("Refused", (Column("configuration"), Column("verdict"), Column("error")))
    refusals.rows.extend((item.name, item.verdict, item.told) for item in found if item.told)
    return Report("Checkpoint configurations", common.about_machine(), [limits, table, refusals])


def _wrong(found: Sequence[Found]) -> int:
    return sum(not item.right for item in found)


def _measured(parts: Collection[str], only: str, keep: Path | None, seed: int) -> Iterator[Found]:
    chosen = [case for name in parts for case in PARTS[name]]
    for number, case in enumerate(chosen):
        if only and not any(text in case.name for text in only):
            continue
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work) if keep is None else keep / f"{number:03}"
            folder.mkdir(parents=True, exist_ok=True)
            try:
                found = measure(case, folder, seed)
            except (OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
                found = Found(case.name, f"failed: {type(error).__name__}: {error}")
        tell(", ".join(map(str, filter(None, found))))
        yield found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare all; 1 where one differs."""
    parser = common.parser("checkpoint_configs", __doc__, "--only roberta")
    parser.add_argument(
        "--only", nargs="*", default=(), metavar="TEXT", help="those with it in their names"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the checkpoints there")
    common.add_rows(parser, PARTS)
    options = parser.parse_args(arguments)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import sentence_transformers  # noqa: F401
        import transformers
    except ImportError as error:
        parser.error(
            f"{error.name} is missing: pip install torch transformers sentence-transformers"
        )
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    found = list(_measured(options.rows, options.only, options.keep, options.seed))
    report_of(found).print(options.output)
    return 1 if _wrong(found) else 0


if __name__ == "__main__":
    sys.exit(main())
