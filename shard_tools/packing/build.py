"""Checkpoint -> pack: quantize, cut one codebook for the model, measure importance, encode, write.

In: a checkpoint directory and options. Out: a pack, or an error and nothing. Two passes over the
encoder: the first puts every matrix on its grids and pools their histogram, the second measures
and encodes block after block and writes each at once. Same input and options, same bytes. Knows no
architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.architectures.base import Model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.packing.activation_importance import (
    Meter,
    calibration_batch,
    calibration_texts,
    scaled_gains,
)
from shard_tools.packing.draft import draft_manifest
from shard_tools.packing.encoding import encode_block, encode_embeddings, with_gains
from shard_tools.packing.estimated_importance import (
    EstimatedImportance,
    estimate_for,
    estimate_notes,
)
from shard_tools.packing.options import BuildOptions, check_options
from shard_tools.packing.pack_writer import (
    PackWriter,
    check_output,
    graph_residents,
    replacing_pack,
)
from shard_tools.packing.quantized_model import QuantizedModel, quantize_model
from shard_tools.packing.source import Source, read_source
from shard_tools.progress import Progress
from shard_tools.quantization.encode import fidelity_values
from sti.model.manifest import Manifest, SliceGroup
from sti.pack.header import VOCABULARY
from sti.pack.tokenizer import VOCABULARY_INDEX, table_name
from sti.text.tokenizer import Tokenizer
from sti.text.vocabulary_index import make_index

_ENCODE_WORK = 3.0
"""What measuring and encoding a weight costs, where quantizing it costs 1; for the progress."""


def build(
    directory: Path, output: Path, options: BuildOptions, *, progress: bool | None = None
) -> Manifest:
    """Make a pack of a checkpoint.

    Args:
        directory: the checkpoint.
        output: the pack; replaced when the build succeeds, untouched otherwise.
        options: the user's choices.
        progress: True or False shows or hides the progress line; None shows it on a terminal.

    Returns:
        The manifest as written.

    Raises:
        CheckpointError: the checkpoint is missing, malformed or not supported.
        InputError: an option or the output path cannot be used.
        StorageError: reading or writing failed.
    """
    check_options(options)
    with Checkpoint(directory) as checkpoint:
        read = [*checkpoint.files(), *filter(None, [options.calibration])]
        check_output(output, apart=read)
        source = read_source(checkpoint, options)
        estimate = estimate_for(source, options)
        texts = calibration_texts(options.calibration)
        model = source.model
        with (
            replacing_pack(output, _least_bytes(source)) as stream,
            Progress(_work(model), shown=progress) as line,
        ):
            quantized = quantize_model(
                model, source.ladder, grid_sigmas=options.grid_sigmas, line=line
            )
            residents = model.residents(source.tokenizer.max_tokens) | quantized.residents()
            graphs = model.graph_spec(quantized.side)
            draft = draft_manifest(source, quantized, graphs, options)
            if estimate is not None:
                draft = draft._replace(notes=draft.notes | estimate_notes(estimate))
            made = made_residents(graphs.build(), source.vocabulary, source.tables)
            writer = PackWriter(stream, draft, residents | made)
            writer.words(encode_embeddings(model, draft.embeddings, line))
            importance: Meter | EstimatedImportance
            if estimate is None:
                importance = _meter(source, quantized, texts, residents)
            else:
                importance = EstimatedImportance(estimate)
            groups = _write_blocks(writer, quantized, draft, importance, line)
            return writer.finish(draft._replace(groups=groups))


def _work(model: Model) -> float:
    """The size of the whole job, for the progress line."""
    return _weights(model) * (1.0 + _ENCODE_WORK) + model.vocabulary * model.hidden


def _weights(model: Model) -> int:
    """Of all blocks."""
    return model.layers * sum(
        product.rows * product.columns for kind in model.kinds for product in kind.products
    )


def _least_bytes(source: Source) -> int:
    """What the pack has at least: all planes and the embedding table."""
    model = source.model
    return _weights(model) * source.ladder[-1] // 8 + model.vocabulary * model.hidden


def made_residents(
    graphs: Mapping[str, bytes], vocabulary: bytes, tables: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Graphs, the vocabulary with its index, and tables of the tokenizer's kind, by their names in
    the pack.

    Raises:
        PackFormatError: the vocabulary is not UTF-8 or holds a word twice.
    """
    index = make_index(vocabulary)._asdict()
    found: dict[str, NDArray[Any]] = {VOCABULARY_INDEX[name]: index[name] for name in index}
    found |= {table_name(name): table for name, table in tables.items()}
    return found | graph_residents(graphs) | {VOCABULARY: np.frombuffer(vocabulary, dtype=np.uint8)}


def _meter(
    source: Source, quantized: QuantizedModel, texts: list[str], residents: dict[str, NDArray[Any]]
) -> Meter:
    batch = calibration_batch(texts, Tokenizer(source.tokenizer, source.vocabulary, source.tables))
    return Meter(source.model, batch, residents, fidelity_values(quantized.encoder))


def _write_blocks(
    writer: PackWriter,
    quantized: QuantizedModel,
    draft: Manifest,
    importance: Meter | EstimatedImportance,
    line: Progress,
) -> tuple[SliceGroup, ...]:
    """Measure, encode and write block after block; their groups as they stand in the manifest."""
    groups, errors = [], {}
    for block in quantized.blocks:
        kind = draft.kind(block.layout.name)
        errors[block.layer, kind.name] = taken = importance.measure(block)
        slices = draft.dimensions.slices
        for encoded in encode_block(block, quantized.encoder, slices, kind.groups, taken):
            groups.append(writer.group(encoded))
        line.step(block.weights * _ENCODE_WORK, f"encoding layer {block.layer}")
    gains = {
        key: scaled_gains(taken, share)
        for (key, taken), share in zip(errors.items(), importance.arriving(), strict=True)
    }
    return with_gains(groups, gains)
