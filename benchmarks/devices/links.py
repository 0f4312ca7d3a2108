"""Row ``links``: what is lost where hidden states travel as fewer bits, on the STS benchmark.

In: a trained pack of sentence embeddings, its development set. Out: Spearman correlations of whole
chains, run layer by layer in this process as devices run them (``sti.devices.stage_runner``): their
hidden states pass through the arrays of messages between stages. The reference is the same pack on
one device. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from benchmarks import common
from benchmarks.common import Column, Table
from benchmarks.devices.packed import BITS
from benchmarks.devices.setting import Setting
from benchmarks.rows import Summary, tell
from benchmarks.stsb import in_batches, read_pairs
from shard_tools.measuring.metrics import spearman
from sti.arrays import Float32Array
from sti.backend.onnxruntime.compute import OrtBackend
from sti.devices.hidden_arrays import from_arrays, to_arrays
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pipeline.runner import Runner
from sti.pipeline.sources import HiddenStates
from sti.pipeline.trace import Recorder
from sti.planning.links import FLOAT16, FLOAT32, INT8
from sti.planning.plan import LOCAL, PlanRequest
from sti.planning.stages import Stage, layers_of, part_of
from sti.planning.step_jobs import prepare
from sti.planning.uniform import uniform_plan
from sti.text.batching import group_by_length
from sti.text.encoding import Encoding

LIMITS = {FLOAT32: 0.0, FLOAT16: 0.001, INT8: 0.003}
"""How far the correlation may be from that of one device, with every layer on a device."""
_BATCH, _QUICK_PAIRS = 64, 20


class Loss(NamedTuple):
    """A kind of link against one device."""

    link_type: str
    cuts: int
    pairs: int
    spearman: float
    alone: float
    """Of one device."""
    mean_cosine: float
    """Between the embeddings of both."""
    least_cosine: float

    @property
    def off(self) -> float:
        """How far the correlation is from that of one device."""
        return self.spearman - self.alone


class CutModel:
    """A pack that is run in stages; a context manager.

    Args:
        pack: of sentence embeddings.
    """

    def __init__(self, pack: Path) -> None:
        with ExitStack() as closed:
            self._reader = reader = closed.enter_context(PackReader.open(pack))
            self._runner = Runner(reader, OrtBackend(reader, lanes=1))
            closed.callback(self._runner.close)
            self._tokenizer = pack_tokenizer(reader)
            request = PlanRequest(reader.manifest, reader.pack_id, Workload(_BATCH, 32))
            self._plan = uniform_plan(request, bits=BITS)
            self._closed = closed.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.close()

    @property
    def layers(self) -> tuple[int, ...]:
        """Of the plan."""
        return layers_of(self._plan)

    def embed(self, texts: Sequence[str], cuts: Sequence[int], link_type: str) -> Float32Array:
        """Embeddings ``[n, d]`` of texts.

        Args:
            cuts: the layers behind which hidden states travel.
            link_type: how they do.
        """
        encodings = [self._tokenizer.encode(text) for text in texts]
        ends = [*cuts, self.layers[-1]]
        found = self._run(encodings, None, Stage(LOCAL, self.layers[0], ends[0]))
        for before, end in pairwise(ends):
            assert isinstance(found, HiddenStates), "it is not the last stage"
            arrays = to_arrays(found.packed, link_type)
            hidden, lengths = self._reader.manifest.dimensions.hidden, found.lengths
            received = from_arrays(arrays, link_type, lengths, hidden, where="here")
            found = self._run(encodings, received, Stage(LOCAL, before + 1, end))
        assert not isinstance(found, HiddenStates), "it is the last stage"
        groups = group_by_length([len(item.ids) for item in encodings])
        places = [member for group in groups for member in group.members]
        return np.concatenate(found)[np.argsort(places)]

    def _run(
        self, encodings: Sequence[Encoding], received: HiddenStates | None, stage: Stage
    ) -> HiddenStates | tuple[Float32Array, ...]:
        part = part_of(self._plan, stage)
        jobs = prepare(part, self._reader.manifest, self._reader.group_offset)
        return self._runner.run_stage(
            jobs,
            part,
            encodings if received is None else lambda: received,
            last=stage.last == self.layers[-1],
            recorder=Recorder(perf_counter()),
        ).found


def measure(setting: Setting) -> Iterator[Loss]:
    """Every kind of link, with a cut in the middle and with one behind each layer."""
    if setting.stsb is None:
        raise ValueError("the development set of the STS benchmark is needed (--stsb FILE)")
    first, second, scores = read_pairs(setting.stsb)
    pairs = setting.scaled(len(first), min(_QUICK_PAIRS, len(first)))
    texts, scores = [*first[:pairs], *second[:pairs]], scores[:pairs]

    def embedded(cuts: Sequence[int], link_type: str) -> Float32Array:
        found = in_batches(texts, _BATCH, lambda some: model.embed(some, cuts, link_type))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def correlation(found: Float32Array) -> float:
        return spearman((found[:pairs] * found[pairs:]).sum(axis=1, dtype=np.float64), scores)

    with CutModel(setting.trained.path) as model:
        wanted = embedded((), FLOAT32)
        alone = correlation(wanted)
        layers = model.layers
        for link_type in LIMITS:
            for cuts in ([layers[len(layers) // 2 - 1]], layers[:-1]):
                tell(f"links: {link_type}, {len(cuts)} cuts")
                found = embedded(cuts, link_type)
                alike = (found * wanted).sum(axis=1, dtype=np.float64)
                yield Loss(
                    link_type,
                    len(cuts),
                    pairs,
                    correlation(found),
                    alone,
                    float(alike.mean()),
                    float(alike.min()),
                )


def summarize(found: Sequence[Loss]) -> Summary:
    """The table, and the limits of the most cuts."""
    columns = (
        *(Column("numbers"), Column("cuts"), Column("pairs"), Column("Spearman", ".5f")),
        *(Column("against one device", "+.5f"), Column("cosine, mean", ".6f")),
        Column("least", ".6f"),
    )
    rows = [
        (item.link_type, item.cuts, item.pairs, item.spearman, item.off, *item[-2:])
        for item in found
    ]
    most = max((item.cuts for item in found), default=0)
    limits = [
        common.at_most(
            f"Spearman off one device's, {item.link_type}, {item.cuts} cuts",
            abs(item.off),
            LIMITS[item.link_type],
        )
        for item in found
        if item.cuts == most
    ]
    return Summary(limits, [Table("Numbers on links, STS benchmark", columns, rows)])
