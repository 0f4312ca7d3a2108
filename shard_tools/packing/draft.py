"""The manifest of a pack before its blocks are encoded.

In: a checkpoint's ``Source``, its ``QuantizedModel``, the names of its graphs. Out: a ``Manifest``
with everything but what writing finds out: checksums, the order of planes, gains. ``PackWriter``
sets aside the space that the finished header can take at most. Knows nothing of bytes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from shard_tools.checkpoint.modelcard import licence_of
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.pack_writer import draft_block
from shard_tools.packing.quantized_model import QuantizedModel
from shard_tools.packing.source import Source
from shard_tools.quantization.blocks import QuantizedBlock, manifest_kind
from shard_tools.quantization.embedding_table import group_size, row_bytes
from sti.codec.codebook import plane_bytes
from sti.model.manifest import (
    Block,
    Dimensions,
    EmbeddingTable,
    Manifest,
    ResidentRegion,
    Submodel,
)
from sti.version import __version__


def draft_manifest(
    source: Source, quantized: QuantizedModel, graphs: Collection[str], options: BuildOptions
) -> Manifest:
    """The manifest before checksums, orders and gains are known."""
    model, codebook = source.model, quantized.encoder.codebook
    group = group_size(model.hidden)
    return Manifest(
        name=options.name or source.directory.resolve().name,
        architecture=model.architecture,
        task=model.task,
        licence=options.licence or licence_of(source.directory),
        source=options.source,
        generator=f"sti-shard {__version__}",
        dimensions=Dimensions(
            model.layers, model.slices, model.hidden, source.tokenizer.max_tokens
        ),
        ladder=codebook.ladder,
        codebook=codebook.to_json(),
        tokenizer=source.tokenizer.to_json(),
        labels=model.labels,
        graphs={name: f"graph.{name}" for name in graphs},
        kinds=tuple(
            manifest_kind(layout, model.slices, quantized.side[layout.name])
            for layout in model.kinds
        ),
        blocks=tuple(_block(block, model.slices, codebook.ladder) for block in quantized.blocks),
        embeddings=EmbeddingTable(
            model.vocabulary, model.hidden, group, row_bytes(model.hidden, group), 0
        ),
        submodels=(Submodel(model.layers, model.slices, tuple(range(model.layers)), 0.0),),
        resident=ResidentRegion("", 1, 0),
        quality=None,
        rejection=None,
        notes=_notes(source, options),
    )


def _block(block: QuantizedBlock, slices: int, ladder: tuple[int, ...]) -> Block:
    weights = block.weights // slices
    sizes = dict(zip(ladder, plane_bytes(ladder, weights), strict=True))
    return draft_block(
        block.layer, block.layout.name, shard_weights=weights, slices=slices, plane_bytes=sizes
    )


def _notes(source: Source, options: BuildOptions) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "importance": "relative squared error of what the head reads, on calibration text",
        "calibration": options.calibration.name if options.calibration else "built-in",
        "grid_sigmas": options.grid_sigmas,
    }
    return notes if source.elastic is None else notes | source.elastic.notes()
