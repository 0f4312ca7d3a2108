"""A pack in memory, run on many texts at any fidelity: what ranking and evaluation measure with.

In: an open pack, texts, and for each block the fidelity of every slice. Out: the head's answers, or
the hidden states on the way, from which a run can go on. The arithmetic is the engine's own, graph
for graph and group for group, so what is measured here is what users get. Knows nothing of targets,
labels, losses or of time: all weights stay decoded in memory, at every fidelity that was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from shard_tools.measuring.residents import OwnResidents
from sti.arrays import ByteArray, Float32Array, Int64Array
from sti.backend.block_bytes import BlockBytes, check_block
from sti.backend.interface import Backend, DecodeTask, GroupState
from sti.backend.onnxruntime.compute import OrtBackend
from sti.backend.working_buffer import WorkingBuffer
from sti.errors import PackCorruptError, StorageError
from sti.model.fidelity import fidelities
from sti.model.manifest import Block, Manifest, Submodel
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pipeline.token_embeddings import Embedder
from sti.planning.block_jobs import prepare_block as job_of
from sti.planning.plan import Plan, PlanStep
from sti.text.batching import Group, group_by_length
from sti.text.encoding import Text

States = tuple[Float32Array, ...]
"""Hidden states ``[B, S, d]`` of each group of a ``Batches``, between two blocks."""


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
    groups: tuple[Group, ...]
    embedded: States
    working: tuple[GroupState, ...]


class Forward:
    """Runs a pack on ``Batches``. Not thread-safe. A context manager, or call ``close``.

    Args:
        reader: the open pack; must stay open.
        threads: compute threads.
        unsigned: as ``OrtBackend`` takes it; answers do not depend on it.

    Raises:
        PackError: the pack contradicts itself.
        BackendError: ONNX Runtime refuses a graph.
    """

    def __init__(self, reader: PackReader, *, threads: int, unsigned: bool | None = None) -> None:
        self._reader = reader
        self._residents = OwnResidents(reader)
        self._manifest = reader.manifest
        self._backend: Backend = OrtBackend(self._residents, threads=threads, unsigned=unsigned)
        self._decoder = self._backend.make_decoder()
        self._tokenizer = pack_tokenizer(reader)
        self._table: ByteArray | None = None
        self._raw: dict[str, ByteArray] = {}
        self._decoded: dict[tuple[int, str, int], WorkingBuffer] = {}
        self._loaded: dict[tuple[str, int], tuple[int, int]] = {}

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
        embedder = Embedder(self._manifest.embeddings, self._read_rows, self._backend)
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
            self._load(item)
            absent = [number for number, bits in enumerate(item.bits) if not bits]
            with self._residents.without(self._manifest.block(item.layer, item.kind), absent):
                for state in batches.working:
                    state.block(item.layer, item.kind, len(item.bits))

    def _load(self, item: BlockPrecision) -> None:
        """Bring the weights into the working buffer of the block's kind, where they differ."""
        buffer = self._backend.buffers[item.kind][0]
        for number, bits in enumerate(item.bits):
            wanted = (item.layer if bits else -1, bits)
            if self._loaded.get((item.kind, number)) == wanted:
                continue
            if bits:
                buffer.copy_slice(number, self._weights(item.layer, item.kind, bits))
            else:
                buffer.clear_slice(number)
            self._loaded[item.kind, number] = wanted

    def _weights(self, layer: int, kind: str, bits: int) -> WorkingBuffer:
        """All slices of a block at one fidelity."""
        key = (layer, kind, bits)
        if key not in self._decoded:
            block = self._manifest.block(layer, kind)
            slices = self._manifest.dimensions.slices
            counts = tuple(slices if step <= bits else 0 for step in self._manifest.ladder)
            job = job_of(PlanStep(layer, kind, counts, 0), block, 0)
            data = BlockBytes(self._bytes(block), tuple(r.offset for r in job.ranges), False)
            check_block(job, data, where=str(self._reader.path))
            out = self._backend.buffers[kind][0].another()
            self._decoder.decode(DecodeTask(job, data, out))
            self._decoded[key] = out
        return self._decoded[key]

    def _bytes(self, block: Block) -> ByteArray:
        """A block as it is stored."""
        if block.tensor not in self._raw:
            offset = self._reader.block_offset(block.tensor)
            self._raw[block.tensor] = self._read(offset, block.length)
        return self._raw[block.tensor]

    def _read(self, offset: int, length: int) -> ByteArray:
        path = self._reader.path
        try:
            found = np.fromfile(path, dtype=np.uint8, count=length, offset=offset)
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
        if found.size != length:
            raise PackCorruptError(f"{path}: ends unexpectedly; fetch the pack again")
        return found

    def _read_rows(self, rows: Int64Array, out: ByteArray) -> None:
        np.take(self._embedding_table(), rows, axis=0, out=out, mode="clip")

    def _embedding_table(self) -> ByteArray:
        """Token embeddings as they are stored, ``[rows, row_bytes]``."""
        if self._table is None:
            table = self._manifest.embeddings
            size = table.rows * table.row_bytes
            found = self._read(self._reader.embeddings_offset, size)
            if crc32(found.data) != table.checksum:
                raise PackCorruptError(
                    f"{self._reader.path}: the embedding table does not match its checksum; "
                    "the pack is damaged, fetch it again"
                )
            self._table = found.reshape(table.rows, table.row_bytes)
        return self._table


def precision_of(plan: Plan, manifest: Manifest) -> Precision:
    """What a plan runs. The plan must fit the manifest (``sti.planning.check.check_plan``)."""
    blocks = [manifest.block(item.layer, item.kind) for item in plan.steps]
    return counted_precision(blocks, [item.counts for item in plan.steps], plan.width)


def counted_precision(
    blocks: Sequence[Block], counts: Sequence[Sequence[int]], width: int
) -> Precision:
    """What blocks run, given how many shards of each of their planes are read.

    Args:
        counts: for each block a number a plane.
    """
    return tuple(
        BlockPrecision(block.layer, block.kind, fidelities(block, tuple(read))[:width])
        for block, read in zip(blocks, counts, strict=True)
    )


def uniform_precision(manifest: Manifest, submodel: Submodel, bits: int) -> Precision:
    """Every slice in use of a submodel at ``bits``."""
    return tuple(
        BlockPrecision(block.layer, block.kind, (bits,) * submodel.width)
        for block in manifest.blocks
        if block.layer in submodel.layers
    )
