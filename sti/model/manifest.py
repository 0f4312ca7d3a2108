"""What a pack says about itself: the manifest, as frozen data.

Planner, pack reader and engine take everything they know about a model from a ``Manifest``. All but
its slice groups serializes itself to the JSON text in a pack's header, which
``sti.pack.manifest_reader`` parses and checks; what differs from group to group is in the binary
index (``sti.pack.index``). Knows nothing of files, of NumPy or of any architecture: operand lists,
slice units and graph names all come from the pack. ``FORMAT.md`` specifies every field.
"""

from __future__ import annotations

import json
from math import prod
from typing import Any, NamedTuple

from sti.model.part import Part
from sti.model.quality import Quality, Rejection, follow, reach

FORMAT_VERSION = 2
"""The only format version that the run time reads.

``sti-shard upgrade`` also reads 1, and packs of 2 from before slices were joined.
"""

HEADS = "heads"
"""A feature of packs whose heads compute what those of earlier releases do not."""

PROMPTS = "prompts"
"""A feature of packs that put a prompt in front of texts where none is chosen."""

JOINED = "joined"
"""A feature that every pack requires: graphs take the slices of an operand as one matrix."""

MULTI_LABEL = "multi_label"
"""The task whose labels each hold or not, whatever the others do."""

SIGMOID = "sigmoid"
"""The activation that there is for values."""

DISTANCES = "distances"
"""A feature that packs require whose attention depends on how far tokens are apart."""

PART = "part"
"""A feature that parts of a pack require: most layers of the model are elsewhere."""

POSITION_BIAS = "position_bias"
"""The sliced input of such a kind: what is added to scores, by head and distance."""

ALIGNMENT = 16384
"""Blocks and the embedding table start at multiples of this many bytes in the file."""

GROUP_ALIGNMENT = 4096
"""Slice groups start at multiples of this many bytes in their block's tensor."""

_KEYS = {"codebook": "book", "embeddings": "words", "of_index": "index"}
"""Fields that have another name in the pack format: ours to the format's."""

COLUMNS, ROWS = "columns", "rows"
JOINTS = (COLUMNS, ROWS)
"""How the slices of an operand form one matrix: side by side, or one below the other."""


class Operand(NamedTuple):
    """One integer matrix of a shard: the graph input it feeds and its shape for one slice."""

    name: str
    shape: tuple[int, ...]
    joined: str
    """How the slices' matrices form one: side by side (``columns``), or one below the other."""


class SideInput(NamedTuple):
    """Weights of one product beyond the int8 grid, fed as ``<name>_idx [k]`` and ``<name>_w``.

    ``channels_per_slice`` is 0 where the index runs over the block's input (``_w`` is then
    ``[slices, k, out]`` and cut to the width); otherwise the index runs over the concatenated
    channels of the slices (``_w`` is ``[k, out]``), and entries beyond the width are left out.
    """

    name: str
    channels_per_slice: int


class BlockKind(NamedTuple):
    """What all blocks of one kind share: how their graph is fed."""

    name: str
    slice_unit: str
    input_kind: str
    operands: tuple[Operand, ...]
    sliced: tuple[str, ...]
    """Resident inputs ``[slices, ...]``, cut to the first ``width`` slices."""
    shared: tuple[str, ...]
    """Resident inputs passed whole."""
    side: tuple[SideInput, ...]
    groups: tuple[int, ...]
    """Slices of each slice group, in order: all of the block's."""

    @property
    def by_distance(self) -> bool:
        """Whether its scores depend on how far tokens are apart."""
        return POSITION_BIAS in self.sliced

    @property
    def shard_weights(self) -> int:
        """Weights of one slice."""
        return sum(prod(operand.shape) for operand in self.operands)


class Plane(NamedTuple):
    """One plane of one slice group: the bits that raise its shards to fidelity ``bits``.

    Slices are numbered from 0 inside their group.
    """

    bits: int
    shard_bytes: int
    order: tuple[int, ...]
    """Slices in the order in which the plane stores them."""
    checksums: tuple[int, ...]
    """CRC-32 of each shard's bytes, by slice."""
    gains: tuple[float, ...]
    """Importance, by slice: how much the plane lowers the expected loss. Float32 values."""


class SliceGroup(NamedTuple):
    """Neighbouring slices of one block: what a step reads, decodes and computes as a unit.

    Its slices are numbered from 0; slice ``i`` is slice ``first + i`` of the block.
    """

    layer: int
    kind: str
    number: int
    """Which of the block's groups this is."""
    first: int
    """The block's slices before it."""
    start: int
    """Where its bytes start in the block's tensor."""
    length: int
    """Bytes in use."""
    shard_weights: int
    outlier_bytes: tuple[int, ...]
    """Bytes of each slice's outlier list; the lists come first, in slice order."""
    outlier_checksums: tuple[int, ...]
    planes: tuple[Plane, ...]

    @property
    def slices(self) -> int:
        """How many slices it has."""
        return len(self.outlier_bytes)

    @property
    def tensor(self) -> str:
        """Name of the block's tensor in the pack."""
        return f"block.{self.layer}.{self.kind}"

    def used(self, width: int) -> int:
        """How many of the first ``width`` slices of the block are in this group."""
        return max(0, min(width - self.first, self.slices))


class EmbeddingTable(NamedTuple):
    """Token embeddings, read by row: 4-bit codes, one float16 scale per group, a checksum."""

    rows: int
    hidden: int
    group: int
    row_bytes: int


class Submodel(NamedTuple):
    """A depth and width the pack vouches for, and its expected loss above the full model's.

    Gains are measured in the full model; a smaller one may lose more or less by missing planes.
    ``losses[i]`` was measured where the planes that are not read add up to gains of ``missing[i]``.
    Without a curve, what is missing is added to ``loss``.
    """

    depth: int
    width: int
    layers: tuple[int, ...]
    loss: float
    """At the top of the ladder."""
    missing: tuple[float, ...] = ()
    """Ascending, from 0; empty for no curve."""
    losses: tuple[float, ...] = ()
    """Never falling, from ``loss``."""

    def loss_at(self, missing: float) -> float:
        """The expected loss where the planes that are not read add up to gains of ``missing``."""
        return follow(self.missing or (0.0,), self.losses or (self.loss,), missing)

    def missing_at(self, loss: float) -> float:
        """The most that may be missing for an expected loss of at most ``loss``.

        The inverse of ``loss_at``: infinite where the curve never exceeds ``loss``, negative
        infinity where the submodel always loses more.
        """
        return reach(self.missing or (0.0,), self.losses or (self.loss,), loss)


class Dimensions(NamedTuple):
    """Sizes of the model."""

    layers: int
    slices: int
    hidden: int
    max_tokens: int
    embedding: int = 0
    """Numbers of an embedding; 0 where it has as many as a hidden state, and for other tasks."""


class ResidentRegion(NamedTuple):
    """A span of the file that is read once at opening, with the CRC-32 of its bytes."""

    first: str
    """Name of the first tensor in the span, which ends where the embedding table starts."""
    length: int
    checksum: int


class ContentHashes(NamedTuple):
    """SHA-256 of what a pack holds, as 64 lower-case hexadecimal digits each."""

    content: str
    """Weights, token embeddings and residents, in an order that ranking does not change."""
    of_index: str
    """The binary index: the orders and gains that ranking measures, and all checksums."""


class Prompts(NamedTuple):
    """What may be put in front of texts, by name."""

    texts: dict[str, str]
    default: str = ""
    """The name of the one that is put there where none is chosen; empty for nothing."""


class Manifest(NamedTuple):
    """Everything a pack says about itself. Immutable; safe to share between threads."""

    name: str
    architecture: str
    task: str
    licence: str
    source: str
    generator: str
    dimensions: Dimensions
    ladder: tuple[int, ...]
    codebook: dict[str, Any]
    tokenizer: dict[str, Any]
    labels: tuple[str, ...]
    graphs: dict[str, str]
    """Graph name, e.g. ``attention.s8``, to the tensor holding the ONNX bytes."""
    kinds: tuple[BlockKind, ...]
    groups: tuple[SliceGroup, ...]
    """In the order of execution, which is the order in the file: those of each block in turn."""
    embeddings: EmbeddingTable
    submodels: tuple[Submodel, ...]
    """The first is the full model."""
    resident: ResidentRegion
    sha256: ContentHashes
    quality: Quality | None
    """What metric to expect at which loss; None where nothing was measured."""
    rejection: Rejection | None
    """When a text is out of scope; None for packs that answer every text."""
    graph_spec: dict[str, Any]
    """What the graphs were made from, so that they can be made again; not read by the run time."""
    notes: dict[str, Any]
    """How importance and quality were measured; for people, not read by the run time."""
    activation: str = ""
    """Of a regression's values: ``sigmoid``, or nothing."""
    prompts: Prompts = Prompts({})
    pairs: bool = True
    """Whether two texts may be read together: the model can tell them apart, or need not."""
    part: Part | None = None
    """Of which pack this is a part; None for a whole pack. All else is about the whole pack, but
    for ``graphs``' tensors, ``resident`` and the hash of the content, which are the file's own."""

    @property
    def held_layers(self) -> range:
        """The layers whose blocks and residents are in the file: all, or those of a part."""
        return range(self.dimensions.layers) if self.part is None else self.part.layers

    @property
    def held_groups(self) -> tuple[SliceGroup, ...]:
        """The slice groups whose bytes are in the file."""
        each = sum(len(kind.groups) for kind in self.kinds)
        layers = self.held_layers
        return self.groups[layers.start * each : layers.stop * each]

    @property
    def holds_words(self) -> bool:
        """Whether the embedding table is in the file: what embeds has the first layer."""
        return 0 in self.held_layers

    @property
    def embedding_size(self) -> int:
        """Numbers of an embedding, where the task is that."""
        return self.dimensions.embedding or self.dimensions.hidden

    @property
    def takes_pairs(self) -> bool:
        """Whether a text may be a pair."""
        return self.pairs and self.task != "tagging"

    def features(self) -> list[str]:
        """What a release must know to answer rightly."""
        new = self.dimensions.embedding or self.activation or self.task == MULTI_LABEL
        changes = self.prompts.texts.get(self.prompts.default)
        found = {
            HEADS: new,
            PROMPTS: changes,
            DISTANCES: any(kind.by_distance for kind in self.kinds),
            PART: self.part is not None,
        }
        return [JOINED, *(name for name, wanted in found.items() if wanted)]

    def kind(self, name: str) -> BlockKind:
        """The kind called ``name``; a checked manifest has every kind that its blocks name."""
        return next(kind for kind in self.kinds if kind.name == name)

    def block(self, layer: int, kind: str) -> tuple[SliceGroup, ...]:
        """The slice groups of a block, in order.

        Raises:
            KeyError: the pack has no such block.
        """
        before = 0
        for found in self.kinds:
            if found.name == kind and 0 <= layer < self.dimensions.layers:
                each = sum(len(other.groups) for other in self.kinds)
                start = layer * each + before
                return self.groups[start : start + len(found.groups)]
            before += len(found.groups)
        raise KeyError((layer, kind))

    def group(self, layer: int, kind: str, number: int) -> SliceGroup:
        """A slice group by its layer, kind and number.

        Raises:
            KeyError: the pack has no such group.
        """
        groups = self.block(layer, kind)
        if not 0 <= number < len(groups):
            raise KeyError((layer, kind, number))
        return groups[number]

    def submodel(self, depth: int, width: int) -> Submodel | None:
        """The submodel of this depth and width; None where the pack does not vouch for one."""
        for submodel in self.submodels:
            if submodel.depth == depth and submodel.width == width:
                return submodel
        return None

    def to_json(self) -> str:
        """All but the slice groups, as the compact JSON text of the header."""
        members = _plain(self._replace(groups=()))
        del members["groups"]  # in the index
        body = {"format": FORMAT_VERSION, "requires": self.features(), **members}
        # Members that a pack does not have are left out rather than null.
        for key in ("quality", "rejection", "part"):
            if body[key] is None:
                del body[key]
        if not self.activation:
            del body["activation"]
        if not self.prompts.texts:
            del body["prompts"]
        if self.pairs:
            del body["pairs"]
        if not self.dimensions.embedding:
            del body["dimensions"]["embedding"]
        for submodel in body["submodels"]:
            if not submodel["missing"]:
                del submodel["missing"], submodel["losses"]
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """A record, and what is in it, as JSON values: records become objects."""
    if hasattr(value, "_asdict"):
        return {_KEYS.get(name, name): _plain(member) for name, member in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(member) for member in value]
    return value
