"""What a pack says about itself: the manifest, as frozen data.

In: the JSON text in the header (``__metadata__["sti"]``). Out: a validated ``Manifest``,
from which planner, reader and engine take everything they know of a model. Knows nothing of files,
of NumPy or of any architecture: operand lists, slice units and graph names all come from the pack.
``FORMAT.md`` specifies every field.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from sti.errors import PackFormatError
from sti.fields import Fields

FORMAT_VERSION = 1
"""The only format version this release reads and writes."""

ALIGNMENT = 16384
"""Blocks and the word table start at multiples of this many bytes in the file."""

TASKS = ("embedding", "classification", "regression", "tagging")


@dataclass(frozen=True, slots=True)
class Operand:
    """One integer matrix of a shard: the graph input it feeds and its shape for one slice."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SideInput:
    """Out-of-grid weights of one product, fed as ``<name>_idx [k]`` and ``<name>_w``.

    ``channels_per_slice`` is 0 where the index runs over the block's input (``_w`` is then
    ``[slices, k, out]`` and cut to the width); otherwise the index runs over the concatenated
    channels of the slices (``_w`` is ``[k, out]``), and entries beyond the width are left out.
    """

    name: str
    channels_per_slice: int


@dataclass(frozen=True, slots=True)
class BlockKind:
    """What all blocks of one kind share: how their graph is fed."""

    name: str
    slice_unit: str
    input_kind: str
    operands: tuple[Operand, ...]
    sliced: tuple[str, ...]
    """Resident inputs ``[slices, ...]``, cut to the first ``width`` slices."""
    shared: tuple[str, ...]
    """Resident inputs given whole."""
    side: tuple[SideInput, ...]


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane of one block: the bits that raise its shards to fidelity ``bits``."""

    bits: int
    shard_bytes: int
    order: tuple[int, ...]
    """Slices in the order they lie in the plane."""
    checksums: tuple[int, ...]
    """CRC-32 of each shard's bytes, in ``order``."""
    gains: tuple[float, ...]
    """Importance by slice: by how much the plane lowers the expected loss."""


@dataclass(frozen=True, slots=True)
class Block:
    """One block of one layer: where its shards lie inside its tensor."""

    layer: int
    kind: str
    shard_weights: int
    length: int
    """Bytes in use; the tensor is padded beyond them."""
    outlier_bytes: tuple[int, ...]
    """Bytes of each slice's outlier list; the lists lie first, in slice order."""
    outlier_checksums: tuple[int, ...]
    planes: tuple[Plane, ...]

    @property
    def tensor(self) -> str:
        """Name of the block's tensor in the pack."""
        return f"block.{self.layer}.{self.kind}"


@dataclass(frozen=True, slots=True)
class WordTable:
    """Word embeddings, read by row: packed 4-bit codes, then one float16 scale a group."""

    rows: int
    hidden: int
    group: int
    row_bytes: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Submodel:
    """A depth and width the pack vouches for, and its expected loss above the full model's."""

    depth: int
    width: int
    layers: tuple[int, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Sizes of the model."""

    layers: int
    slices: int
    hidden: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Resident:
    """A span of the file that is read once at opening, with the CRC-32 of its bytes."""

    first: str
    """Name of the first tensor in the span, which ends where the word table starts."""
    length: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a pack says about itself. Immutable; safe to share between threads."""

    name: str
    architecture: str
    task: str
    licence: str
    source: str
    generator: str
    dimensions: Dimensions
    ladder: tuple[int, ...]
    book: dict[str, Any]
    tokenizer: dict[str, Any]
    labels: tuple[str, ...]
    graphs: dict[str, str]
    """Graph name, e.g. ``attention.s8``, to the tensor holding the ONNX bytes."""
    kinds: tuple[BlockKind, ...]
    blocks: tuple[Block, ...]
    """In the order of execution, which is the order in the file."""
    words: WordTable
    submodels: tuple[Submodel, ...]
    """The first is the full model."""
    resident: Resident
    notes: dict[str, Any]
    """How importance and quality were measured; for people, not read by the run time."""

    def kind(self, name: str) -> BlockKind:
        """The kind called ``name``; the manifest was checked, so it exists."""
        return next(kind for kind in self.kinds if kind.name == name)

    def to_json(self) -> str:
        """The manifest as the compact JSON text that stands in the header."""
        body = {"format": FORMAT_VERSION, **asdict(self)}
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> Manifest:
        """Parse and check a manifest.

        Raises:
            PackFormatError: not JSON, an unknown format version, a missing or ill-typed field,
                or fields that contradict one another; names ``where`` and the field.
        """
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise PackFormatError(f"{where}: the manifest is not valid JSON: {error}") from error
        fields = Fields(parsed, where=f"{where}: manifest", error=PackFormatError)
        version = fields.integer("format")
        if version != FORMAT_VERSION:
            raise PackFormatError(
                f"{where}: pack format {version} is unknown to this release, which reads format "
                f"{FORMAT_VERSION}; upgrade sti, or rebuild the pack with `sti-shard build`"
            )
        manifest = _parse(fields)
        _check(manifest, where)
        return manifest


def _parse(fields: Fields) -> Manifest:
    dims = fields.object("dimensions")
    words = fields.object("words")
    resident = fields.object("resident")
    graphs = fields.object("graphs")
    return Manifest(
        name=fields.text("name"),
        architecture=fields.text("architecture"),
        task=fields.text("task"),
        licence=fields.text("licence"),
        source=fields.text("source"),
        generator=fields.text("generator"),
        dimensions=Dimensions(
            layers=dims.integer("layers", least=1),
            slices=dims.integer("slices", least=1),
            hidden=dims.integer("hidden", least=1),
            max_tokens=dims.integer("max_tokens", least=3),
        ),
        ladder=fields.integers("ladder", least=1),
        book=_plain(fields, "book"),
        tokenizer=_plain(fields, "tokenizer"),
        labels=fields.texts("labels"),
        graphs={key: graphs.text(key) for key in graphs.keys()},
        kinds=tuple(_kind(item) for item in fields.objects("kinds")),
        blocks=tuple(_block(item) for item in fields.objects("blocks")),
        words=WordTable(
            rows=words.integer("rows", least=1),
            hidden=words.integer("hidden", least=1),
            group=words.integer("group", least=1),
            row_bytes=words.integer("row_bytes", least=1),
            checksum=words.integer("checksum"),
        ),
        submodels=tuple(_submodel(item) for item in fields.objects("submodels")),
        resident=Resident(
            first=resident.text("first"),
            length=resident.integer("length", least=1),
            checksum=resident.integer("checksum"),
        ),
        notes=_plain(fields, "notes"),
    )


def _plain(fields: Fields, key: str) -> dict[str, Any]:
    value = fields.object(key)
    return {name: value.raw(name) for name in value.keys()}


def _kind(fields: Fields) -> BlockKind:
    return BlockKind(
        name=fields.text("name"),
        slice_unit=fields.text("slice_unit"),
        input_kind=fields.text("input_kind"),
        operands=tuple(
            Operand(item.text("name"), item.integers("shape", least=1))
            for item in fields.objects("operands")
        ),
        sliced=fields.texts("sliced"),
        shared=fields.texts("shared"),
        side=tuple(
            SideInput(item.text("name"), item.integer("channels_per_slice"))
            for item in fields.objects("side")
        ),
    )


def _block(fields: Fields) -> Block:
    return Block(
        layer=fields.integer("layer"),
        kind=fields.text("kind"),
        shard_weights=fields.integer("shard_weights", least=8),
        length=fields.integer("length", least=1),
        outlier_bytes=fields.integers("outlier_bytes"),
        outlier_checksums=fields.integers("outlier_checksums"),
        planes=tuple(
            Plane(
                bits=item.integer("bits", least=1),
                shard_bytes=item.integer("shard_bytes", least=1),
                order=item.integers("order"),
                checksums=item.integers("checksums"),
                gains=item.numbers("gains"),
            )
            for item in fields.objects("planes")
        ),
    )


def _submodel(fields: Fields) -> Submodel:
    return Submodel(
        depth=fields.integer("depth", least=1),
        width=fields.integer("width", least=1),
        layers=fields.integers("layers"),
        loss=fields.number("loss", least=0.0),
    )


def _check(manifest: Manifest, where: str) -> None:
    """Refuse fields that contradict one another."""

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise PackFormatError(f"{where}: manifest: {message}; rebuild or fetch the pack again")

    dims = manifest.dimensions
    names = {kind.name for kind in manifest.kinds}
    ladder = manifest.ladder
    require(manifest.task in TASKS, f"task {manifest.task!r} is not one of {', '.join(TASKS)}")
    require(bool(ladder) and list(ladder) == sorted(set(ladder)), "the ladder must increase")
    require(bool(manifest.blocks) and bool(manifest.submodels), "blocks or submodels are missing")
    words = manifest.words
    require(words.hidden == dims.hidden, "word rows do not have the model's width")
    grouped = words.hidden % 2 == 0 and words.hidden % words.group == 0
    require(grouped, "word rows cannot be cut into halves and groups")
    row_bytes = words.hidden // 2 + words.hidden // words.group * 2
    require(words.row_bytes == row_bytes, f"word rows take {row_bytes} bytes")
    for kind in manifest.kinds:
        require(bool(kind.operands), f"block kind {kind.name!r} has no operands")
    listed = [(block.layer, block.kind) for block in manifest.blocks]
    require(len(set(listed)) == len(listed), "a block is listed twice")
    for block in manifest.blocks:
        tag = f"layer {block.layer} {block.kind}"
        require(block.layer < dims.layers, f"{tag} is beyond the last layer")
        require(block.kind in names, f"{tag} is of an unknown kind")
        weights = sum(_size(operand.shape) for operand in manifest.kind(block.kind).operands)
        require(block.shard_weights == weights, f"{tag}: shards do not fit the operands")
        require(tuple(plane.bits for plane in block.planes) == ladder, f"{tag}: planes")
        counts = {len(block.outlier_bytes), len(block.outlier_checksums)}
        for plane in block.planes:
            counts |= {len(plane.order), len(plane.checksums), len(plane.gains)}
        require(counts == {dims.slices}, f"{tag}: lists must have one entry a slice")
        slices = list(range(dims.slices))
        require(list(block.planes[0].order) == slices, f"{tag}: the first plane is not in order")
        length, lower = sum(block.outlier_bytes), 0
        for plane in block.planes:
            fits = plane.shard_bytes * 8 == weights * (plane.bits - lower)
            require(fits, f"{tag}: plane {plane.bits} has shards of another size")
            require(sorted(plane.order) == slices, f"{tag}: order of plane {plane.bits}")
            require(min(plane.gains) >= 0.0, f"{tag}: a gain of plane {plane.bits} is negative")
            length += plane.shard_bytes * dims.slices
            lower = plane.bits
        require(length == block.length, f"{tag}: its parts do not add up to its length")
    for submodel in manifest.submodels:
        inside = submodel.depth <= dims.layers and submodel.width <= dims.slices
        ascending = sorted(set(submodel.layers)) == list(submodel.layers)
        fits = ascending and len(submodel.layers) == submodel.depth
        fits = fits and all(layer < dims.layers for layer in submodel.layers)
        require(inside and fits, f"submodel {submodel.depth}x{submodel.width} does not fit")
    full = manifest.submodels[0]
    require((full.depth, full.width) == (dims.layers, dims.slices), "the full model comes first")


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
