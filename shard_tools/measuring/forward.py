"""A pack in memory, run on many texts at any fidelity: what ranking and evaluation measure with.

In: an open pack, texts, and for each block the fidelity of every slice. Out: the head's answers, or
the hidden states on the way, from which a run can go on. The arithmetic is the engine's own, graph
for graph and group for group, so what is measured here is what users get. Knows nothing of targets,
labels, losses or of time: all weights stay decoded in memory, at every fidelity that was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from shard_tools.measuring.residents import OwnResidents
from sti.arrays import ByteArray, Float32Array, Int64Array
from sti.backend.interface import Backend, SentenceState
from sti.backend.onnxruntime.compute import OrtBackend
from sti.backend.working_buffer import WorkingBuffer, clear_slice, copy_slice
from sti.codec.pieces import OperandRoom
from sti.model.decoded_size import decoded_bytes
from sti.model.fidelity import fidelities
from sti.model.manifest import Manifest, SliceGroup, Submodel
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pipeline.decoding import DecodePolicy, DecodeTask, damaged, decode
from sti.pipeline.preload_buffer import StepBytes
from sti.pipeline.token_embeddings import Embedder
from sti.planning.plan import EXACT, Plan, PlanStep
from sti.planning.step_jobs import prepare_step
from sti.text.batching import SentenceGroup, group_by_length
from sti.text.encoding import Text

States = tuple[Float32Array, ...]
"""Hidden states ``[B, S, d]`` of each group of a ``Batches``, between two blocks."""

_Key = tuple[int, str, int]
"""A slice group: layer, kind, number."""


_Loaded = list[tuple[_Key | None, int] | None]
"""What each slice in a working buffer is of: a group and bits; no group for zeros."""


@dataclass(frozen=True, slots=True)
class BlockPrecision:
    """How one block is run: the bits of slices 0 to width - 1. 0 leaves a slice out."""

    layer: int
    kind: str
    bits: tuple[int, ...]


Precision = tuple[BlockPrecision, ...]
"""The blocks to run, in the order of execution."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Texts made ready once by ``Forward.batches``: tokenized, grouped by length, embedded.

    Belongs to the ``Forward`` that made it; its working states are overwritten by every run.
    """

    count: int
    """Texts."""
    tokens: int
    """Tokens of all texts, without padding."""
    truncated: int
    """Texts that were cut to the model's longest."""
    groups: tuple[SentenceGroup, ...]
    embedded: States
    working: tuple[SentenceState, ...]


class Forward:
    """Runs a pack on ``Batches``. Not thread-safe. A context manager, or call ``close``.

    Args:
        reader: the open pack; must stay open.
        threads: compute threads.
        saturates: as ``OrtBackend`` takes it; answers do not depend on it.

    Raises:
        PackError: the pack contradicts itself.
        BackendError: ONNX Runtime refuses a graph.
    """

    def __init__(self, reader: PackReader, *, threads: int, saturates: bool | None = None) -> None:
        self._reader = reader
        self._residents = OwnResidents(reader)
        self._manifest = reader.manifest
        self._backend: Backend = OrtBackend(
            self._residents, lanes=1, threads=threads, saturates=saturates
        )
        self._policy = DecodePolicy(
            self._backend.decoder, str(reader.path), check=True, adapt=False
        )
        self._dtype = self._backend.decoder(EXACT).dtype
        self._buffers = {kind.name: number for number, kind in enumerate(self._manifest.kinds)}
        self._tokenizer = pack_tokenizer(reader)
        self._table: ByteArray | None = None
        self._raw: dict[_Key, ByteArray] = {}
        self._decoded: dict[tuple[_Key, int], tuple[OperandRoom, ...]] = {}
        self._loaded: dict[str, _Loaded] = {}

    def __enter__(self) -> Forward:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back sessions and memory. Idempotent."""
        self._backend.close()
        self._table = None
        for kept in (self._raw, self._decoded, self._loaded):
            kept.clear()

    @property
    def manifest(self) -> Manifest:
        """What the pack says about itself."""
        return self._manifest

    def batches(self, texts: Sequence[Text]) -> Batches:
        """Tokenize and embed texts, at least one. Groups are those of the engine for this batch.

        Raises:
            PackCorruptError: the embedding table is damaged.
            StorageError: reading it failed.
        """
        encodings = [self._tokenizer.encode_text(text) for text in texts]
        lengths = [len(encoding.ids) for encoding in encodings]
        groups = group_by_length(lengths)
        where = str(self._reader.path)
        embedder = Embedder(self._manifest.embeddings, self._read_rows, self._backend, where=where)
        states = embedder.start(encodings, groups, embedder.read(encodings), reuse=False)
        return Batches(
            count=len(texts),
            tokens=sum(lengths),
            truncated=sum(encoding.truncated for encoding in encodings),
            groups=groups,
            embedded=tuple(state.hidden() for state in states),
            working=tuple(states),
        )

    def logits(
        self, batches: Batches, precision: Precision, *, start: States | None = None
    ) -> Float32Array:
        """The head's answers, ``[n, outputs]`` in the order of the texts; a new array.

        Args:
            precision: the blocks to run.
            start: hidden states in front of the first of them (``states`` gave them); None for the
                embedded texts.

        Raises:
            PackCorruptError: a block is damaged.
            StorageError: reading it failed.
        """
        self._run(batches, precision, start)
        found: Float32Array | None = None
        for group, state in zip(batches.groups, batches.working, strict=True):
            rows = state.finish()
            if found is None:
                found = np.empty((batches.count, *rows.shape[1:]), dtype=np.float32)
            found[list(group.members)] = rows
        assert found is not None, "batches are never empty"
        return found

    def states(
        self, batches: Batches, precision: Precision, *, start: States | None = None
    ) -> States:
        """Hidden states behind the blocks of ``precision``; new arrays. Arguments as ``logits``."""
        self._run(batches, precision, start)
        return tuple(state.hidden() for state in batches.working)

    def _run(self, batches: Batches, precision: Precision, start: States | None) -> None:
        """Leave the states behind the blocks of ``precision`` in the working states."""
        for state, hidden in zip(batches.working, start or batches.embedded, strict=True):
            state.set_hidden(hidden)
        for item in precision:
            absent = [number for number, bits in enumerate(item.bits) if not bits]
            width = len(item.bits)
            with self._residents.without(item.layer, item.kind, absent):
                for group in self._manifest.block(item.layer, item.kind):
                    used = group.used(width)
                    if not used:
                        break
                    self._load(group, item.bits[group.first : group.first + used])
                    for state in batches.working:
                        state.step(group, used, buffer=self._buffers[group.kind])
                for state in batches.working:
                    state.connect(item.layer, item.kind)

    def _load(self, group: SliceGroup, wanted: Sequence[int]) -> None:
        """Bring weights into the working buffer of the block's kind, where they differ.

        Args:
            wanted: bits of each of the group's slices in use; 0 for none.
        """
        kind, count = self._manifest.kind(group.kind), len(wanted)
        loaded = self._loaded.get(group.kind)
        if loaded is None or len(loaded) != count:  # other slices in use lie in other places
            loaded = self._loaded[group.kind] = [None] * count
        buffer = self._backend.buffer(self._buffers[group.kind])
        rooms = buffer.operands(kind, count, self._dtype)
        for number, bits in enumerate(wanted):
            source = (_key(group) if bits else None, bits)
            if loaded[number] == source:
                continue
            if bits:
                copy_slice(rooms, self._weights(group, bits), number)
            else:
                clear_slice(rooms, number)
            loaded[number] = source

    def _weights(self, group: SliceGroup, bits: int) -> tuple[OperandRoom, ...]:
        """All slices of a group at one fidelity."""
        key = (_key(group), bits)
        if key not in self._decoded:
            counts = tuple(group.slices if plane.bits <= bits else 0 for plane in group.planes)
            step = PlanStep(group.layer, group.kind, group.number, counts, 0)
            kind = self._manifest.kind(group.kind)
            job = prepare_step(step, group, 0, width=self._manifest.dimensions.slices)
            starts = np.array([found.offset for found in job.ranges], np.uint64)
            out = WorkingBuffer(decoded_bytes(kind, group.slices))
            task = DecodeTask(job, StepBytes(self._bytes(group), starts, False), out, kind)
            fault = decode(task, self._policy)
            if fault is not None:
                raise damaged(job, fault, self._policy)
            self._decoded[key] = out.operands(kind, group.slices, self._dtype)
        return self._decoded[key]

    def _bytes(self, group: SliceGroup) -> ByteArray:
        """A group as it is stored."""
        key = _key(group)
        if key not in self._raw:
            data = self._reader.read(self._reader.group_offset(group), group.length)
            self._raw[key] = np.frombuffer(data, np.uint8)
        return self._raw[key]

    def _read_rows(self, rows: Int64Array, out: ByteArray) -> None:
        np.take(self._embedding_table(), rows, axis=0, out=out, mode="clip")

    def _embedding_table(self) -> ByteArray:
        """Token embeddings as they are stored, ``[rows, row_bytes]``."""
        if self._table is None:
            table = self._manifest.embeddings
            size = table.rows * table.row_bytes
            found = self._reader.read(self._reader.embeddings_offset, size)
            self._table = np.frombuffer(found, np.uint8).reshape(table.rows, table.row_bytes)
        return self._table


def _key(group: SliceGroup) -> _Key:
    return group.layer, group.kind, group.number


def precision_of(plan: Plan, manifest: Manifest) -> Precision:
    """What a plan runs. The plan must fit the manifest (``sti.planning.check.check_plan``)."""
    groups = [manifest.group(item.layer, item.kind, item.group) for item in plan.steps]
    return counted_precision(groups, [item.counts for item in plan.steps], plan.width)


def counted_precision(
    groups: Sequence[SliceGroup], counts: Sequence[Sequence[int]], width: int
) -> Precision:
    """What blocks run, given how many shards of each plane of their groups are read.

    Args:
        groups: those with one of the first ``width`` slices, in the order of execution.
        counts: for each group a number a plane.
    """
    pairs = zip(groups, counts, strict=True)
    blocks = groupby(pairs, key=lambda pair: (pair[0].layer, pair[0].kind))
    return tuple(
        BlockPrecision(
            layer,
            kind,
            tuple(
                bits
                for group, read in parts
                for bits in fidelities(group, read)[: group.used(width)]
            ),
        )
        for (layer, kind), parts in blocks
    )


def uniform_precision(manifest: Manifest, submodel: Submodel, bits: int) -> Precision:
    """Every slice in use of a submodel at ``bits``."""
    return tuple(
        BlockPrecision(layer, kind.name, (bits,) * submodel.width)
        for layer in submodel.layers
        for kind in manifest.kinds
    )
