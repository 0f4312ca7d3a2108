"""The manifest of a pack before its blocks are encoded.

In: a checkpoint's ``Source``, its ``QuantizedModel``, what its graphs are made from. Out: a
``Manifest`` with everything but what encoding and writing find out: slice groups, checksums,
hashes. Knows nothing of bytes.
"""

from __future__ import annotations

from typing import Any

from shard_tools.checkpoint.locate import model_name
from shard_tools.checkpoint.modelcard import licence_of
from shard_tools.graphs.spec import GraphSpec
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.pack_writer import graph_tensor
from shard_tools.packing.quantized_model import QuantizedModel
from shard_tools.packing.source import Source
from shard_tools.quantization.blocks import manifest_kind
from shard_tools.quantization.embedding_table import group_size
from sti.codec.word_rows import row_bytes
from sti.model.manifest import (
    ContentHashes,
    Dimensions,
    EmbeddingTable,
    Manifest,
    ResidentRegion,
    Submodel,
)
from sti.version import __version__

DEFAULT_IMPORTANCE = "relative squared error of what the head reads, on calibration text"
"""What gains are, where training left none."""


def draft_manifest(
    source: Source, quantized: QuantizedModel, graphs: GraphSpec, options: BuildOptions
) -> Manifest:
    """The manifest before its groups are encoded."""
    model, codebook = source.model, quantized.encoder.codebook
    group = group_size(model.hidden)
    return Manifest(
        name=options.name or model_name(source.directory),
        architecture=model.architecture,
        task=model.task,
        licence=options.licence or licence_of(source.directory),
        source=options.source,
        generator=f"sti-shard {__version__}",
        dimensions=Dimensions(
            model.layers,
            model.slices,
            model.hidden,
            source.tokenizer.max_tokens,
            embedding=model.dimension if model.dimension != model.hidden else 0,
        ),
        ladder=codebook.ladder,
        codebook=codebook.to_json(),
        tokenizer=source.tokenizer.to_json(),
        labels=model.labels,
        graphs={name: graph_tensor(name) for name in graphs.names()},
        kinds=tuple(
            manifest_kind(
                layout,
                model.slices,
                quantized.side[layout.name],
                group_bytes=options.group_bytes,
            )
            for layout in model.kinds
        ),
        groups=(),
        embeddings=EmbeddingTable(
            model.vocabulary, model.hidden, group, row_bytes(model.hidden, group)
        ),
        submodels=(Submodel(model.layers, model.slices, tuple(range(model.layers)), 0.0),),
        resident=ResidentRegion("", 1, 0),
        sha256=ContentHashes("", ""),
        quality=None,
        rejection=None,
        graph_spec=graphs.to_json(),
        notes=_notes(source, options, quantized.grid_sigmas),
        activation=model.activation,
        prompts=source.prompts,
        pairs=model.pairs,
    )


def _notes(source: Source, options: BuildOptions, grid_sigmas: float) -> dict[str, Any]:
    notes: dict[str, Any] = {
        "importance": DEFAULT_IMPORTANCE,
        "calibration": options.calibration.name if options.calibration else "built-in",
        "grid_sigmas": grid_sigmas,
    }
    if source.model.task == "embedding":
        notes["similarity"] = source.similarity
    if source.model.told:
        notes["told"] = list(source.model.told)
    return notes if source.elastic is None else notes | source.elastic.notes()
