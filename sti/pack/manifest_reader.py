"""Reading a manifest: parses it, and refuses a format or a feature that this release does not know.

In: the JSON text in a pack's header (``__metadata__["sti"]``). Out: a checked ``Manifest`` without
its slice groups, which are in the index (``sti.pack.index``). Knows nothing of files;
``sti.pack.header`` checks that tensors are where they should be.
"""

from __future__ import annotations

from typing import Any

from sti.errors import PackFormatError
from sti.json_fields import JsonFields
from sti.model.manifest import (
    DISTANCES,
    FORMAT_VERSION,
    HEADS,
    JOINED,
    JOINTS,
    PART,
    PROMPTS,
    BlockKind,
    ContentHashes,
    Dimensions,
    EmbeddingTable,
    Manifest,
    Operand,
    Prompts,
    ResidentRegion,
    SideInput,
    Submodel,
)
from sti.model.part import Part
from sti.model.quality import Quality, Rejection
from sti.pack.manifest_check import check_manifest
from sti.storage.json_input import JsonLimits, parse_json

UPGRADED = (1,)
"""Older formats that `sti-shard upgrade` reads."""

MOST_HEADER_BYTES = 1 << 20
"""Of a pack's header, with its manifest: twenty times that of a model of 24 layers, which grows by
a few kilobytes per layer; numbers per shard are in tensors."""

HEADER_LIMITS = JsonLimits(MOST_HEADER_BYTES, 1 << 17, 8)
"""Tensors by name, each with type, shape and place; some 12 values a tensor."""

MANIFEST_LIMITS = JsonLimits(MOST_HEADER_BYTES, 1 << 17, 16)
"""Some 2,500 values, of which submodels, codebook and labels have the most; whoever makes a pack
may nest notes of their own."""

FEATURES: frozenset[str] = frozenset({JOINED, HEADS, PROMPTS, DISTANCES, PART})
"""What a pack may require of this release."""


def read_manifest(text: str, *, where: str) -> Manifest:
    """Parse and check a manifest.

    Raises:
        PackFormatError: not JSON, an unknown format version or feature, a field that is missing or
            of the wrong type, or fields that contradict one another; names ``where`` and the field.
    """
    try:
        parsed = parse_json(text, MANIFEST_LIMITS)
    except ValueError as error:
        raise PackFormatError(f"{where}: the manifest is not valid JSON: {error}") from error
    fields = JsonFields(parsed, where=f"{where}: manifest", error=PackFormatError)
    version = fields.integer("format")
    if version in UPGRADED:
        raise PackFormatError(
            f"{where}: is of pack format {version}, this release reads format {FORMAT_VERSION}; "
            f"{_rewrite(where)}"
        )
    if version != FORMAT_VERSION:
        raise PackFormatError(
            f"{where}: pack format {version} is unknown to this release, which reads format "
            f"{FORMAT_VERSION}; upgrade sti, or rebuild the pack with `sti-shard build`"
        )
    _check_features(fields, where)
    manifest = _parse(fields)
    check_manifest(manifest, where)
    return manifest


def _rewrite(where: str) -> str:
    return f"rewrite it once with `sti-shard upgrade {where} -o NEW`"


def _check_features(fields: JsonFields, where: str) -> None:
    """Refuse features that are unknown, and packs from before one that all must have."""
    required = fields.texts("requires")
    unknown = [name for name in required if name not in FEATURES]
    if unknown:
        told = ", ".join(name if name.isprintable() else repr(name) for name in unknown)
        raise PackFormatError(
            f"{where}: the pack requires what this release does not know: {told:.80}; upgrade sti"
        )
    if JOINED not in required:
        raise PackFormatError(
            f"{where}: is of an earlier form of pack format {FORMAT_VERSION}, whose graphs take "
            f"slices one by one; {_rewrite(where)}"
        )
    if (PART in required) != fields.has("part"):
        raise PackFormatError(
            f"{where}: manifest: whether it is a part of a pack is told in two ways (`requires`, "
            "`part`); fetch or make it again"
        )


def _parse(fields: JsonFields) -> Manifest:
    dims = fields.object("dimensions")
    words = fields.object("words")
    resident = fields.object("resident")
    hashes = fields.object("sha256")
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
            embedding=dims.integer("embedding", least=1) if dims.has("embedding") else 0,
        ),
        ladder=fields.integers("ladder", least=1),
        codebook=_plain(fields, "book"),
        tokenizer=_plain(fields, "tokenizer"),
        labels=fields.texts("labels"),
        graphs={key: graphs.text(key) for key in graphs.keys()},
        kinds=tuple(_kind(item) for item in fields.objects("kinds")),
        groups=(),
        embeddings=EmbeddingTable(
            rows=words.integer("rows", least=1),
            hidden=words.integer("hidden", least=1),
            group=words.integer("group", least=1),
            row_bytes=words.integer("row_bytes", least=1),
        ),
        submodels=tuple(_submodel(item) for item in fields.objects("submodels")),
        resident=ResidentRegion(
            first=resident.text("first"),
            length=resident.integer("length", least=1),
            checksum=resident.integer("checksum"),
        ),
        sha256=ContentHashes(hashes.text("content"), hashes.text("index")),
        quality=_quality(fields.object("quality")) if fields.has("quality") else None,
        rejection=_rejection(fields.object("rejection")) if fields.has("rejection") else None,
        graph_spec=_plain(fields, "graph_spec"),
        notes=_plain(fields, "notes"),
        activation=fields.text("activation") if fields.has("activation") else "",
        prompts=_prompts(fields.object("prompts")) if fields.has("prompts") else Prompts({}),
        pairs=fields.flag("pairs") if fields.has("pairs") else True,
        part=_part(fields.object("part")) if fields.has("part") else None,
    )


def _plain(fields: JsonFields, key: str) -> dict[str, Any]:
    value = fields.object(key)
    return {name: value.raw(name) for name in value.keys()}


def _kind(fields: JsonFields) -> BlockKind:
    return BlockKind(
        name=fields.text("name"),
        slice_unit=fields.text("slice_unit"),
        input_kind=fields.text("input_kind"),
        operands=tuple(_operand(item) for item in fields.objects("operands")),
        sliced=fields.texts("sliced"),
        shared=fields.texts("shared"),
        side=tuple(
            SideInput(item.text("name"), item.integer("channels_per_slice"))
            for item in fields.objects("side")
        ),
        groups=fields.integers("groups", least=1),
    )


def _operand(fields: JsonFields) -> Operand:
    joined = fields.text("joined")
    if joined not in JOINTS:
        raise fields.fail("joined", f"one of {', '.join(JOINTS)}")
    return Operand(fields.text("name"), fields.integers("shape", least=1), joined)


def _submodel(fields: JsonFields) -> Submodel:
    return Submodel(
        depth=fields.integer("depth", least=1),
        width=fields.integer("width", least=1),
        layers=fields.integers("layers"),
        loss=fields.number("loss", least=0.0),
        missing=fields.numbers("missing") if fields.has("missing") else (),
        losses=fields.numbers("losses") if fields.has("losses") else (),
    )


def _prompts(fields: JsonFields) -> Prompts:
    texts = fields.object("texts")
    return Prompts({name: texts.text(name) for name in texts.keys()}, fields.text("default"))


def _part(fields: JsonFields) -> Part:
    return Part(
        parent=fields.text("parent"),
        pack_id=fields.text("pack_id"),
        first=fields.integer("first"),
        last=fields.integer("last"),
    )


def _quality(fields: JsonFields) -> Quality:
    return Quality(
        metric=fields.text("metric"),
        examples=fields.integer("examples", least=1),
        residual=fields.number("residual", least=0.0),
        losses=fields.numbers("losses"),
        values=fields.numbers("values"),
    )


def _rejection(fields: JsonFields) -> Rejection:
    return Rejection(
        label=fields.text("label"),
        temperature=fields.number("temperature", least=1e-6),
        accepted=fields.number("accepted", least=0.0),
        losses=fields.numbers("losses"),
        thresholds=fields.numbers("thresholds"),
    )
