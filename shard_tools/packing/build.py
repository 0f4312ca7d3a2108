"""Checkpoint -> pack: quantize, cut one codebook for the model, measure importance, encode, write.

In: a checkpoint directory and options. Out: a pack, or an error and nothing. Two passes over the
encoder: the first puts every matrix on its grids and pools their histogram, the second measures
and encodes block after block and writes each at once. Same input and options, same bytes. Knows no
architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shard_tools.architectures.base import Model, cuts
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.packing.activation_importance import Meter, scaled_gains
from shard_tools.packing.calibration_text import (
    BUILT_IN,
    CalibrationText,
    calibration_batch,
    calibration_encodings,
    calibration_texts,
    known_share,
)
from shard_tools.packing.draft import DEFAULT_IMPORTANCE, draft_manifest
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
from shard_tools.packing.quantized_model import QuantizedModel, fitting_grid, quantize_model
from shard_tools.packing.source import Source, read_source
from shard_tools.packing.summary import Summary, summarize
from shard_tools.progress import Progress
from shard_tools.quantization.embedding_table import group_size
from shard_tools.quantization.encode import fidelity_values
from shard_tools.quantization.grids import DEFAULT_GRID_SIGMAS
from sti.codec.word_rows import row_bytes
from sti.model.manifest import Manifest, SliceGroup
from sti.pack.header import VOCABULARY
from sti.pack.tokenizer import table_name
from sti.text.kinds import KINDS
from sti.text.tokenizer import Tokenizer

_ENCODE_WORK = 3.0
"""What measuring and encoding a weight costs, where quantizing it costs 1; for the progress."""
_ROWS = 8192
"""Token embeddings that are looked at at once."""


class Built(NamedTuple):
    """A pack that was made."""

    manifest: Manifest
    """As written."""
    summary: Summary


def build(
    directory: Path, output: Path, options: BuildOptions, *, progress: bool | None = None
) -> Built:
    """Make a pack of a checkpoint.

    Args:
        directory: the checkpoint.
        output: the pack; replaced when the build succeeds, untouched otherwise.
        options: the user's choices.
        progress: True or False shows or hides the progress line; None shows it on a terminal.

    Raises:
        CheckpointError: the checkpoint is missing, malformed or not supported.
        InputError: an option or the output path cannot be used.
        StorageError: reading or writing failed.
    """
    check_options(options)
    with Checkpoint(directory) as checkpoint:
        source = read_source(checkpoint, options)
        check_output(output, apart=_read_files(checkpoint, options))
        estimate = estimate_for(source, options)
        texts = _CalibrationTexts(source, options)
        model = source.model
        with (
            replacing_pack(output, _least_bytes(source)) as stream,
            Progress(_work(model), shown=progress) as line,
        ):
            grid_sigmas = _grid_sigmas(source, options)
            quantized = quantize_model(model, source.ladder, grid_sigmas=grid_sigmas, line=line)
            residents = model.residents(source.tokenizer.max_tokens) | quantized.residents()
            graphs = model.graph_spec(quantized.side)
            draft = draft_manifest(source, quantized, graphs, options)
            if estimate is not None:
                draft = draft._replace(notes=draft.notes | estimate_notes(estimate))
            made = made_residents(
                graphs.build(), source.tokenizer.kind, source.vocabulary, source.tables
            )
            writer = PackWriter(stream, draft, residents | made)
            writer.words(encode_embeddings(model, draft.embeddings, line))
            importance: Meter | EstimatedImportance
            if estimate is None:
                batch = calibration_batch(texts.encodings)
                values = fidelity_values(quantized.encoder)
                importance = Meter(model, batch, residents, values)
            else:
                importance = EstimatedImportance(estimate)
            groups = _write_blocks(writer, quantized, draft, importance, line)
            manifest = writer.finish(draft._replace(groups=groups))
        known = () if estimate is not None else texts.known()
        summary = summarize(
            checkpoint,
            source,
            graphs,
            importance=str(draft.notes["importance"]),
            calibration=known,
            estimated_bytes=output.stat().st_size,
        )
        return Built(manifest, summary)


class _CalibrationTexts:
    """The texts to measure with, as tokens."""

    def __init__(self, source: Source, options: BuildOptions) -> None:
        self._path = options.calibration
        self._tokenizer = Tokenizer(source.tokenizer, source.vocabulary, source.tables)
        self._texts = calibration_texts(options.calibration)
        self.encodings = calibration_encodings(self._texts, self._tokenizer)

    def known(self) -> tuple[CalibrationText, ...]:
        """How well the tokenizer knows them, and beside the user's the built-in ones."""
        unknown = self._tokenizer.unknown
        if self._path is None:
            return (known_share(BUILT_IN, self._texts, self.encodings, unknown),)
        texts = calibration_texts(None)
        encodings = calibration_encodings(texts, self._tokenizer)
        return (
            known_share(self._path.name, self._texts, self.encodings, unknown),
            known_share(BUILT_IN, texts, encodings, unknown),
        )


def dry_run(directory: Path, output: Path | None, options: BuildOptions) -> Summary:
    """What ``build`` would do; reads and checks all that it would read, and writes nothing.

    Args:
        output: the pack; None leaves unchecked whether it could be written.

    Raises as ``build``.
    """
    check_options(options)
    with Checkpoint(directory) as checkpoint:
        source = read_source(checkpoint, options)
        if output is not None:
            check_output(output, apart=_read_files(checkpoint, options))
        estimate = estimate_for(source, options)
        texts = _CalibrationTexts(source, options)
        model = source.model
        size = _least_bytes(source) + len(source.vocabulary)
        for layer in range(model.layers):
            for kind in model.kinds:
                vectors = model.block(layer, kind.name).vectors
                size += sum(vector.nbytes for vector in vectors.values())
        for start, stop in cuts(model.vocabulary, _ROWS):
            model.token_rows(start, stop)
        residents = model.residents(source.tokenizer.max_tokens)
        size += sum(resident.nbytes for resident in residents.values())
        graphs = model.graph_spec({kind.name: () for kind in model.kinds})
        size += sum(map(len, graphs.build().values()))
        notes = DEFAULT_IMPORTANCE if estimate is None else estimate_notes(estimate)["importance"]
        return summarize(
            checkpoint,
            source,
            graphs,
            importance=str(notes),
            calibration=() if estimate is not None else texts.known(),
            estimated_bytes=size,
        )


def _grid_sigmas(source: Source, options: BuildOptions) -> float:
    """Half the width of the grids."""
    if options.grid_sigmas is not None:
        return options.grid_sigmas
    return DEFAULT_GRID_SIGMAS if source.elastic is not None else fitting_grid(source.model)


def _read_files(checkpoint: Checkpoint, options: BuildOptions) -> list[Path]:
    """Files that must not be written to."""
    return [*checkpoint.files(), *filter(None, [options.calibration])]


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
    rows = row_bytes(model.hidden, group_size(model.hidden))
    return _weights(model) * source.ladder[-1] // 8 + model.vocabulary * rows


def made_residents(
    graphs: Mapping[str, bytes], kind: str, vocabulary: bytes, tables: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Graphs, the vocabulary with its index, and tables of the tokenizer's kind, by their names in
    the pack.

    Args:
        kind: of tokenizer.

    Raises:
        PackFormatError: the vocabulary is not UTF-8 or holds a word twice.
    """
    index = KINDS[kind].indexing.make(vocabulary)._asdict()
    found = {table_name(name): table for name, table in (*index.items(), *tables.items())}
    return found | graph_residents(graphs) | {VOCABULARY: np.frombuffer(vocabulary, dtype=np.uint8)}


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
