"""Checkpoint -> pack: quantize, cut one codebook for the model, rank, encode, write.

In: a checkpoint directory and options. Out: a pack, or an error and nothing. Two passes over the
encoder: the first puts every matrix on its grids and pools their histogram, the second measures
and encodes block after block and writes each at once; in between stand only the int8 matrices, a
quarter of a float checkpoint. Same input and options, same bytes. Knows no architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from shard_tools.architectures.base import Model, cuts
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.elastic import ELASTIC, Elastic, Estimate, read_elastic
from shard_tools.checkpoint.modelcard import licence_of
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.packing.activation_importance import (
    Meter,
    calibration_batch,
    calibration_texts,
    scaled_gains,
)
from shard_tools.packing.pack_writer import EncodedBlock, PackWriter, draft_block, replacing_pack
from shard_tools.progress import Progress
from shard_tools.quantization.blocks import (
    QuantizedBlock,
    manifest_kind,
    quantize_block,
    side_products,
)
from shard_tools.quantization.codebook import build_codebook, histogram
from shard_tools.quantization.embedding_table import encode_rows, group_size, row_bytes
from shard_tools.quantization.encode import EncodedShard, Encoder, fidelity_values
from shard_tools.quantization.grids import DEFAULT_GRID_SIGMAS, outlier_cut
from sti.codec.codebook import DEFAULT_LADDER, Codebook, check_ladder, plane_bytes
from sti.errors import CheckpointError, InputError, PackFormatError
from sti.model.manifest import (
    Block,
    Dimensions,
    EmbeddingTable,
    Manifest,
    Plane,
    ResidentRegion,
    Submodel,
)
from sti.pack.header import VOCABULARY
from sti.text.wordpiece import Tokenizer, TokenizerSpec
from sti.version import __version__

_WORD_ROWS = 4096
# Shares of the work, for the progress line: quantizing, and measuring plus encoding, a weight.
_QUANTIZE_WORK, _ENCODE_WORK = 1.0, 3.0


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a user may choose. Empty texts and None stand for what the checkpoint says."""

    slices: int | None = None
    ladder: tuple[int, ...] | None = None
    """None: what the checkpoint was trained for, else ``DEFAULT_LADDER``."""
    grid_sigmas: float = DEFAULT_GRID_SIGMAS
    name: str = ""
    licence: str = ""
    source: str = ""
    calibration: Path | None = None


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
    _check_options(options)
    with Checkpoint(directory) as checkpoint:
        _keep_apart(checkpoint, output)
        model, elastic = _open(checkpoint, options)
        options = replace(options, ladder=_ladder(elastic, options))
        estimate = _estimate(elastic, model, options)
        spec, vocabulary = load_tokenizer(directory)
        texts = calibration_texts(options.calibration)
        weights = model.layers * sum(
            product.rows * product.columns for kind in model.kinds for product in kind.products
        )
        table_weights = model.vocabulary * model.hidden
        work = weights * (_QUANTIZE_WORK + _ENCODE_WORK) + table_weights * _QUANTIZE_WORK
        with replacing_pack(output) as stream, Progress(work, shown=progress) as line:
            blocks = list(_quantized(model, options.grid_sigmas, line))
            codebook, encoder = _codebook(blocks, options)
            side = side_products(blocks)
            residents = _residents(model, spec, blocks, side)
            graphs = model.graphs(side)
            tensors = _named_tensors(residents, graphs, vocabulary)
            draft = _draft(model, spec, blocks, codebook, side, tuple(graphs), options, directory)
            if elastic is not None:
                draft = replace(draft, notes=draft.notes | elastic.notes())
            if estimate is not None:
                draft = replace(draft, notes=draft.notes | _estimate_notes(estimate))
            writer = PackWriter(stream, draft, tensors)
            checksum = writer.words(_encoded_words(model, draft.embeddings, line))
            meter = None
            if estimate is None:
                batch = calibration_batch(texts, Tokenizer(spec, vocabulary))
                meter = Meter(model, batch, residents, fidelity_values(codebook, encoder))
            layouts, taken = [], []
            for block in blocks:
                if meter is not None:
                    taken.append(meter.measure(block))
                elif estimate is not None:
                    taken.append(np.array(estimate.gains[block.layer, block.layout.name]))
                encoded = _encoded(block, encoder, model.slices, taken[-1])
                writer.block(encoded)
                layouts.append(encoded.layout)
                line.step(_weights(block) * _ENCODE_WORK, f"encoding layer {block.layer}")
            arriving = [1.0] * len(blocks) if meter is None else meter.arriving()
            ranked = _with_gains(layouts, taken, arriving)
            embeddings = replace(draft.embeddings, checksum=checksum)
            return writer.finish(replace(draft, embeddings=embeddings, blocks=ranked))


def _open(checkpoint: Checkpoint, options: BuildOptions) -> tuple[Model, Elastic | None]:
    """The model in as many slices as it was trained for, and what it was trained for."""
    model = open_model(checkpoint, slices=options.slices)
    elastic = read_elastic(checkpoint, layers=model.layers)
    if elastic is None or elastic.slices == model.slices:
        return model, elastic
    if options.slices is not None:
        raise InputError(
            f"{checkpoint.directory}: was trained to be cut into {elastic.slices} slices, not "
            f"{options.slices}; leave out the number of slices"
        )
    return open_model(checkpoint, slices=elastic.slices), elastic


def _ladder(elastic: Elastic | None, options: BuildOptions) -> tuple[int, ...]:
    """The fidelities asked for, or those the checkpoint was trained for."""
    trained = () if elastic is None else elastic.ladder
    return options.ladder or trained or DEFAULT_LADDER


def _estimate(elastic: Elastic | None, model: Model, options: BuildOptions) -> Estimate | None:
    """The gains that training estimated, if they are of these planes and none else are asked for.

    Raises:
        CheckpointError: a block of the model has none.
    """
    found = None if elastic is None else elastic.estimate
    if found is None or elastic is None or options.calibration is not None:
        return None
    if (options.ladder, options.grid_sigmas) != (elastic.ladder, DEFAULT_GRID_SIGMAS):
        return None  # other planes than training knew
    for layer, layout in product(range(model.layers), model.kinds):
        if (layer, layout.name) not in found.gains:
            raise CheckpointError(
                f"{ELASTIC}: importance has no gains of layer {layer} {layout.name}; train the "
                "checkpoint again, or remove the member"
            )
    return found


def _estimate_notes(estimate: Estimate) -> dict[str, Any]:
    return {
        "importance": f"divergence from the full model's answers, estimated ({estimate.measure})",
        "calibration": f"{estimate.examples} rows of the checkpoint's",
    }


def _check_options(options: BuildOptions) -> None:
    try:
        if options.ladder is not None:
            check_ladder(options.ladder)
    except PackFormatError as error:
        raise InputError(f"ladder: {error}") from error
    outlier_cut(grid_sigmas=options.grid_sigmas)
    for key in ("name", "licence", "source"):
        try:
            getattr(options, key).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{key}: is not valid Unicode text") from error


def _keep_apart(checkpoint: Checkpoint, output: Path) -> None:
    """Refuse to overwrite what is being read."""
    for path in checkpoint.files():
        if output.exists() and output.samefile(path):
            raise InputError(f"{output}: is part of the checkpoint; name another output")


def _quantized(model: Model, grid_sigmas: float, line: Progress) -> Iterator[QuantizedBlock]:
    """Every block on its grids, in the order of execution."""
    for layer in range(model.layers):
        for layout in model.kinds:
            weights = model.block(layer, layout.name)
            block = quantize_block(layer, layout, weights, grid_sigmas=grid_sigmas)
            line.step(_weights(block) * _QUANTIZE_WORK, f"quantizing layer {layer}")
            yield block


def _weights(block: QuantizedBlock) -> int:
    return sum(grid.q.size for grid in block.matrices.values())


def _codebook(blocks: Sequence[QuantizedBlock], options: BuildOptions) -> tuple[Codebook, Encoder]:
    """One codebook for the model, cut from the pooled histogram of its int8 values."""
    counts = np.zeros(256, dtype=np.int64)
    for block in blocks:
        for grid in block.matrices.values():
            counts += histogram(grid.q)
    cut = outlier_cut(grid_sigmas=options.grid_sigmas)
    assert options.ladder is not None
    codebook = build_codebook(counts, cut=cut, ladder=options.ladder)
    return codebook, Encoder(codebook, cut=cut)


def _residents(
    model: Model,
    spec: TokenizerSpec,
    blocks: Sequence[QuantizedBlock],
    side: Mapping[str, Sequence[str]],
) -> dict[str, NDArray[Any]]:
    """ResidentRegion tensors of all graphs, by their names in the pack."""
    found: dict[str, NDArray[Any]] = dict(model.residents(spec.max_tokens))
    for block in blocks:
        base = f"layer.{block.layer}.{block.layout.name}"
        tensors = block.residents(side[block.layout.name])
        found |= {f"{base}.{name}": array for name, array in tensors.items()}
    return found


def _named_tensors(
    residents: Mapping[str, NDArray[Any]], graphs: Mapping[str, bytes], vocabulary: bytes
) -> dict[str, NDArray[Any]]:
    """Everything that goes into the resident region."""
    blobs = {f"graph.{name}": data for name, data in graphs.items()} | {VOCABULARY: vocabulary}
    return dict(residents) | {
        name: np.frombuffer(data, dtype=np.uint8) for name, data in blobs.items()
    }


def _draft(
    model: Model,
    spec: TokenizerSpec,
    blocks: Sequence[QuantizedBlock],
    codebook: Codebook,
    side: Mapping[str, Sequence[str]],
    graphs: Sequence[str],
    options: BuildOptions,
    directory: Path,
) -> Manifest:
    """The manifest before checksums and gains are known."""
    group = group_size(model.hidden)
    return Manifest(
        name=options.name or directory.resolve().name,
        architecture=model.architecture,
        task=model.task,
        licence=options.licence or licence_of(directory),
        source=options.source,
        generator=f"sti-shard {__version__}",
        dimensions=Dimensions(model.layers, model.slices, model.hidden, spec.max_tokens),
        ladder=codebook.ladder,
        codebook=codebook.to_json(),
        tokenizer=spec.to_json(),
        labels=model.labels,
        graphs={name: f"graph.{name}" for name in graphs},
        kinds=tuple(
            manifest_kind(layout, model.slices, side[layout.name]) for layout in model.kinds
        ),
        blocks=tuple(_draft_block(block, model.slices, codebook.ladder) for block in blocks),
        embeddings=EmbeddingTable(
            model.vocabulary, model.hidden, group, row_bytes(model.hidden, group), 0
        ),
        submodels=(Submodel(model.layers, model.slices, tuple(range(model.layers)), 0.0),),
        resident=ResidentRegion("", 1, 0),
        quality=None,
        rejection=None,
        notes={
            "importance": "relative squared error of what the head reads, on calibration text",
            "calibration": str(options.calibration.name) if options.calibration else "built-in",
            "grid_sigmas": options.grid_sigmas,
        },
    )


def _draft_block(block: QuantizedBlock, slices: int, ladder: Sequence[int]) -> Block:
    weights = _weights(block) // slices
    sizes = dict(zip(ladder, plane_bytes(ladder, weights), strict=True))
    return draft_block(
        block.layer, block.layout.name, shard_weights=weights, slices=slices, plane_bytes=sizes
    )


def _encoded_words(
    model: Model, table: EmbeddingTable, line: Progress
) -> Iterator[NDArray[np.uint8]]:
    """The embedding table in pieces."""
    for start, stop in cuts(table.rows, _WORD_ROWS):
        line.step((stop - start) * table.hidden * _QUANTIZE_WORK, "encoding words")
        yield encode_rows(model.word_rows(start, stop), group=table.group)


def _encoded(
    block: QuantizedBlock, encoder: Encoder, slices: int, taken: NDArray[np.float64]
) -> EncodedBlock:
    """A block's shards in their planes, each plane in the order of the errors it takes away."""
    shards: list[EncodedShard] = [
        encoder.encode(block.shard(index, slices)) for index in range(slices)
    ]
    parts = [shard.outliers for shard in shards]
    planes: list[Plane] = []
    for bits, errors in zip(shards[0].planes, taken.tolist(), strict=True):
        order = list(range(slices))
        if planes:  # the first plane keeps the slice order: it is the order that width cuts
            order.sort(key=errors.__getitem__, reverse=True)
        pieces = [shards[index].planes[bits] for index in order]
        checksums = tuple(crc32(piece) for piece in pieces)
        planes.append(Plane(bits, pieces[0].nbytes, tuple(order), checksums, ()))
        parts += pieces
    layout = Block(
        layer=block.layer,
        kind=block.layout.name,
        shard_weights=_weights(block) // slices,
        length=sum(part.nbytes for part in parts),
        outlier_bytes=tuple(shard.outliers.nbytes for shard in shards),
        outlier_checksums=tuple(crc32(shard.outliers) for shard in shards),
        planes=tuple(planes),
    )
    return EncodedBlock(layout, parts)


def _with_gains(
    layouts: Sequence[Block], taken: Sequence[NDArray[np.float64]], arriving: Sequence[float]
) -> tuple[Block, ...]:
    """The blocks with their gains, which are known only when the last one is measured."""
    ranked = []
    for layout, errors, share in zip(layouts, taken, arriving, strict=True):
        gains = scaled_gains(errors, share)
        planes = tuple(
            replace(plane, gains=row) for plane, row in zip(layout.planes, gains, strict=True)
        )
        ranked.append(replace(layout, planes=planes))
    return tuple(ranked)
