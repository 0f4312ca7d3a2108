"""What a pack is made from: a checkpoint, with its architecture and what its training recorded.

In: an open checkpoint and the user's options. Out: a ``Source``. Knows nothing of grids, codes or
files of packs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from shard_tools.architectures.base import Model
from shard_tools.architectures.registry import family_of, open_model
from shard_tools.checkpoint.elastic import Elastic, read_elastic
from shard_tools.checkpoint.prompts import SENTENCE_FILE, read_prompts, read_similarity
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.settings import Settings, check_settings
from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.packing.options import BuildOptions
from sti.codec.codebook import DEFAULT_LADDER
from sti.engine.prompts import leaves_room
from sti.errors import CheckpointError, InputError
from sti.model.manifest import Prompts
from sti.text.tokenizer import Tokenizer
from sti.text.tokenizer_spec import TokenizerSpec


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint, ready to be packed. Usable for as long as the checkpoint is open."""

    directory: Path
    model: Model
    elastic: Elastic | None
    """What it was trained for; None for a checkpoint that was not trained to be cut."""
    ladder: tuple[int, ...]
    tokenizer: TokenizerSpec
    vocabulary: bytes
    tables: Mapping[str, NDArray[Any]]
    """Of the tokenizer's kind."""
    prompts: Prompts
    similarity: str
    """What embeddings are compared by."""
    settings: Settings
    """All that its metadata files say, sorted by whether it has an effect."""


def read_source(checkpoint: Checkpoint, options: BuildOptions) -> Source:
    """Read everything but the weights.

    Raises:
        CheckpointError: the checkpoint is malformed or not supported.
        InputError: it was trained for another number of slices than is asked for.
    """
    settings = check_settings(checkpoint, family_of(checkpoint).name)
    model, elastic = _open(checkpoint, options)
    trained = () if elastic is None else elastic.ladder
    spec, vocabulary, tables = load_tokenizer(checkpoint.directory)
    if spec.max_tokens > model.positions:  # some rows of a table may be for no token of a text
        spec = spec._replace(max_tokens=model.positions)
    _check_padding(checkpoint, model, spec, vocabulary)
    return Source(
        directory=checkpoint.directory,
        model=model,
        elastic=elastic,
        ladder=options.ladder or trained or DEFAULT_LADDER,
        tokenizer=spec,
        vocabulary=vocabulary,
        tables=tables,
        prompts=_prompts(checkpoint, model, Tokenizer(spec, vocabulary, tables)),
        similarity=read_similarity(checkpoint),
        settings=settings,
    )


def _check_padding(
    checkpoint: Checkpoint, model: Model, spec: TokenizerSpec, vocabulary: bytes
) -> None:
    """Refuse a padding token that is around every text, if positions are counted without it."""
    if model.uncounted is None:
        return
    words = vocabulary.split(b"\n", model.uncounted + 1)
    word = words[model.uncounted].decode("utf-8") if model.uncounted < len(words) else ""
    template = () if spec.template is None else (*spec.template.single, *spec.template.pair)
    if word in (spec.cls_token, spec.sep_token, *(part.what for part in template)):
        raise CheckpointError(
            f"{checkpoint.directory / 'config.json'}: pad_token_id {model.uncounted} is {word!r}, "
            f"which is around every text: {model.architecture} counts positions without padding, "
            "and this is not supported; give the padding token a number of its own"
        )


def _prompts(checkpoint: Checkpoint, model: Model, tokenizer: Tokenizer) -> Prompts:
    """The checkpoint's prompts, which labels of places in texts have none of."""
    prompts, where = read_prompts(checkpoint), checkpoint.directory / SENTENCE_FILE
    if model.task == "tagging" and prompts.texts:
        raise CheckpointError(f"{where}: prompts are not supported for tagging")
    if prompts.default and not leaves_room(tokenizer, prompts.texts[prompts.default]):
        raise CheckpointError(
            f"{where}: the default prompt, {prompts.default!r:.60}, fills all of the "
            f"{tokenizer.spec.max_tokens} tokens that the model takes, so no text would be read"
        )
    return prompts


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
