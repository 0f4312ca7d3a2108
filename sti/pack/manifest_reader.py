"""Reading a manifest: parses it, and refuses one whose members contradict one another.

In: the JSON text in a pack's header (``__metadata__["sti"]``). Out: a checked ``Manifest``. Runs
whenever a pack is opened, so lists are checked as a whole, not item by item. Knows nothing of
files; ``sti.pack.header`` checks that tensors are where they should be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

from sti.codec.codebook import WEIGHTS_MULTIPLE
from sti.errors import PackFormatError
from sti.json_fields import JsonFields
from sti.model.manifest import (
    FORMAT_VERSION,
    Block,
    BlockKind,
    Dimensions,
    EmbeddingTable,
    Manifest,
    Operand,
    Plane,
    ResidentRegion,
    SideInput,
    Submodel,
)
from sti.model.quality import METRICS, Quality, Rejection, least_of

TASKS = ("embedding", "classification", "regression", "tagging")


def read_manifest(text: str, *, where: str) -> Manifest:
    """Parse and check a manifest.

    Raises:
        PackFormatError: not JSON, an unknown format version, a field that is missing or of the
            wrong type, or fields that contradict one another; names ``where`` and the field.
    """
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PackFormatError(f"{where}: the manifest is not valid JSON: {error}") from error
    fields = JsonFields(parsed, where=f"{where}: manifest", error=PackFormatError)
    version = fields.integer("format")
    if version != FORMAT_VERSION:
        raise PackFormatError(
            f"{where}: pack format {version} is unknown to this release, which reads format "
            f"{FORMAT_VERSION}; upgrade sti, or rebuild the pack with `sti-shard build`"
        )
    manifest = _parse(fields)
    _Check(manifest, where).all()
    return manifest


def _parse(fields: JsonFields) -> Manifest:
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
        codebook=_plain(fields, "book"),
        tokenizer=_plain(fields, "tokenizer"),
        labels=fields.texts("labels"),
        graphs={key: graphs.text(key) for key in graphs.keys()},
        kinds=tuple(_kind(item) for item in fields.objects("kinds")),
        blocks=tuple(_block(item) for item in fields.objects("blocks")),
        embeddings=EmbeddingTable(
            rows=words.integer("rows", least=1),
            hidden=words.integer("hidden", least=1),
            group=words.integer("group", least=1),
            row_bytes=words.integer("row_bytes", least=1),
            checksum=words.integer("checksum"),
        ),
        submodels=tuple(_submodel(item) for item in fields.objects("submodels")),
        resident=ResidentRegion(
            first=resident.text("first"),
            length=resident.integer("length", least=1),
            checksum=resident.integer("checksum"),
        ),
        quality=_quality(fields.object("quality")) if fields.has("quality") else None,
        rejection=_rejection(fields.object("rejection")) if fields.has("rejection") else None,
        notes=_plain(fields, "notes"),
    )


def _plain(fields: JsonFields, key: str) -> dict[str, Any]:
    value = fields.object(key)
    return {name: value.raw(name) for name in value.keys()}


def _kind(fields: JsonFields) -> BlockKind:
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


def _block(fields: JsonFields) -> Block:
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


def _submodel(fields: JsonFields) -> Submodel:
    return Submodel(
        depth=fields.integer("depth", least=1),
        width=fields.integer("width", least=1),
        layers=fields.integers("layers"),
        loss=fields.number("loss", least=0.0),
        missing=fields.numbers("missing") if fields.has("missing") else (),
        losses=fields.numbers("losses") if fields.has("losses") else (),
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


class _Check:
    """Refuses members of a manifest that contradict one another, part by part."""

    def __init__(self, manifest: Manifest, where: str) -> None:
        self._manifest, self._where = manifest, where

    def all(self) -> None:
        """Check every part.

        Raises:
            PackFormatError: a part is contradictory; names it.
        """
        self._model()
        self._words()
        weights = {
            kind.name: sum(prod(operand.shape) for operand in kind.operands)
            for kind in self._manifest.kinds
        }
        listed = [(block.layer, block.kind) for block in self._manifest.blocks]
        self._require(len(set(listed)) == len(listed), "a block is listed twice")
        for block in self._manifest.blocks:
            self._block(block, weights)
        for submodel in self._manifest.submodels:
            self._submodel(submodel)
        self._submodels()
        if self._manifest.quality is not None:
            self._quality(self._manifest.quality)
        if self._manifest.rejection is not None:
            self._rejection(self._manifest.rejection)

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise PackFormatError(
                f"{self._where}: manifest: {message}; rebuild or fetch the pack again"
            )

    def _model(self) -> None:
        task, ladder = self._manifest.task, self._manifest.ladder
        self._require(task in TASKS, f"task {task!r} is not one of {', '.join(TASKS)}")
        self._require(bool(ladder) and _rises(ladder), "the ladder must increase")
        there = bool(self._manifest.blocks) and bool(self._manifest.submodels)
        self._require(there, "blocks or submodels are missing")
        for kind in self._manifest.kinds:
            self._require(bool(kind.operands), f"block kind {kind.name!r} has no operands")
            for operand in kind.operands:
                whole = prod(operand.shape) % WEIGHTS_MULTIPLE == 0
                wanted = f"must have a multiple of {WEIGHTS_MULTIPLE} weights per slice"
                self._require(whole, f"{kind.name} operand {operand.name!r} {wanted}")

    def _words(self) -> None:
        words = self._manifest.embeddings
        fits = words.hidden == self._manifest.dimensions.hidden
        self._require(fits, "token embeddings do not have the model's width")
        grouped = words.hidden % 2 == 0 and words.hidden % words.group == 0
        self._require(grouped, "token embeddings cannot be divided into halves and groups")
        row_bytes = words.hidden // 2 + words.hidden // words.group * 2
        self._require(words.row_bytes == row_bytes, f"a token embedding takes {row_bytes} bytes")

    def _block(self, block: Block, weights: dict[str, int]) -> None:
        dims = self._manifest.dimensions
        tag = f"layer {block.layer} {block.kind}"
        self._require(block.layer < dims.layers, f"{tag} is beyond the last layer")
        self._require(block.kind in weights, f"{tag} is of an unknown kind")
        fits = block.shard_weights == weights[block.kind]
        self._require(fits, f"{tag}: shards do not fit the operands")
        bits = tuple(plane.bits for plane in block.planes)
        self._require(bits == self._manifest.ladder, f"{tag}: planes differ from the ladder")
        counts = {len(block.outlier_bytes), len(block.outlier_checksums)}
        for plane in block.planes:
            counts |= {len(plane.order), len(plane.checksums), len(plane.gains)}
        self._require(counts == {dims.slices}, f"{tag}: lists must have one entry per slice")
        slices = list(range(dims.slices))
        in_order = list(block.planes[0].order) == slices
        self._require(in_order, f"{tag}: slices of the first plane are not in order")
        length, lower = sum(block.outlier_bytes), 0
        for plane in block.planes:
            fits = plane.shard_bytes * 8 == block.shard_weights * (plane.bits - lower)
            self._require(fits, f"{tag}: plane {plane.bits} has shards of another size")
            self._require(sorted(plane.order) == slices, f"{tag}: bad order of plane {plane.bits}")
            good = min(plane.gains) >= 0.0
            self._require(good, f"{tag}: a gain of plane {plane.bits} is negative")
            length += plane.shard_bytes * dims.slices
            lower = plane.bits
        self._require(length == block.length, f"{tag}: its parts do not add up to its length")

    def _submodel(self, submodel: Submodel) -> None:
        dims = self._manifest.dimensions
        tag = f"submodel {submodel.depth}x{submodel.width}"
        layers = submodel.layers
        fits = submodel.depth <= dims.layers and submodel.width <= dims.slices
        fits = fits and len(layers) == submodel.depth and _rises(layers)
        self._require(fits and layers[-1] < dims.layers, f"{tag} does not fit")
        missing, losses = submodel.missing, submodel.losses
        self._require(len(missing) == len(losses), f"{tag}: missing and losses differ in length")
        if missing:
            starts = (missing[0], losses[0]) == (0.0, submodel.loss)
            curved = starts and _rises(missing) and _never_falls(losses)
            self._require(curved, f"{tag}: missing and losses do not rise from 0 and its loss")

    def _submodels(self) -> None:
        dims, submodels = self._manifest.dimensions, self._manifest.submodels
        sizes = [(submodel.depth, submodel.width) for submodel in submodels]
        self._require(len(set(sizes)) == len(sizes), "a submodel is listed twice")
        full = sizes[0] == (dims.layers, dims.slices)
        self._require(full, "the first submodel must be the full model")

    def _quality(self, quality: Quality) -> None:
        metric = quality.metric
        known = metric in METRICS
        self._require(known, f"quality.metric {metric!r} is not one of {', '.join(METRICS)}")
        self._require(quality.examples < 2**53, "quality.examples must be below 2**53")
        spread = quality.residual <= 2.0
        self._require(spread, "quality.residual must be at most 2")
        self._along("quality", quality.losses, "values", quality.values)
        values = quality.values
        self._require(_never_falls(values[::-1]), "quality.values must not rise")
        least = least_of(metric)
        inside = least <= values[-1] and values[0] <= 1.0
        self._require(inside, f"quality.values must lie between {least:g} and 1")

    def _rejection(self, rejection: Rejection) -> None:
        fits = self._manifest.task == "classification"
        self._require(fits, "rejection is only for classification")
        self._require(rejection.accepted <= 1.0, "rejection.accepted must be a share, at most 1")
        self._along("rejection", rejection.losses, "thresholds", rejection.thresholds)
        inside = min(rejection.thresholds) >= 0.0 and max(rejection.thresholds) <= 1.0
        self._require(inside, "rejection.thresholds must lie between 0 and 1")

    def _along(
        self, name: str, losses: Sequence[float], member: str, values: Sequence[float]
    ) -> None:
        """A curve over losses: at least one point, the losses rising from 0 or above."""
        paired = 0 < len(losses) == len(values)
        self._require(paired, f"{name}.losses and {name}.{member} must pair up")
        self._require(losses[0] >= 0.0 and _rises(losses), f"{name}.losses must rise")


def _rises(values: Sequence[float]) -> bool:
    return all(low < high for low, high in pairwise(values))


def _never_falls(values: Sequence[float]) -> bool:
    return all(low <= high for low, high in pairwise(values))
