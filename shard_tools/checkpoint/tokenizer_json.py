"""``tokenizer.json``: a whole tokenizer, as the ``tokenizers`` library writes it.

In: the file. Out: a ``Pipeline``. What all kinds of tokenizers share is read here, the rest by the
reader of its kind. Padding and the length of truncation that are stored in the file are settings of
whoever saved it, and ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from shard_tools.checkpoint.byte_bpe_json import read_byte_bpe
from shard_tools.checkpoint.tokenizer_pipeline import (
    Listed,
    OwnPart,
    Pipeline,
    added_token,
    read_object,
)
from shard_tools.checkpoint.unigram_json import read_unigram
from shard_tools.checkpoint.wordpiece_json import read_wordpiece
from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from sti.text.template import Part, Template, bert_template, roberta_template
from sti.text.tokenizer_spec import SIDES

READERS: Mapping[str, Callable[[JsonFields], OwnPart]] = {
    "WordPiece": read_wordpiece,
    "Unigram": read_unigram,
    "BPE": read_byte_bpe,
}
"""Of the fields of a file, by the type of its model."""

_TEMPLATES = "supported: TemplateProcessing, BertProcessing, RobertaProcessing"


def read_tokenizer_json(path: Path) -> Pipeline:
    """The pipeline of a tokenizer file.

    Raises:
        CheckpointError: the file is malformed, or describes what is not supported.
    """
    fields = read_object(path)
    model = fields.object("model")
    # Files of the library's first versions leave the type out.
    old = "WordPiece" if model.has("continuing_subword_prefix") else "unknown"
    kind = model.text("type") if model.has("type") else old
    if kind not in READERS:
        raise CheckpointError(
            f"{model.where}: type {kind!r:.80} is not supported; supported: {', '.join(READERS)}"
        )
    own = READERS[kind](fields)
    return Pipeline(own, _template(fields, own.words), _added(fields), _side(fields))


def _added(fields: JsonFields) -> tuple[Listed, ...]:
    entries = fields.objects("added_tokens") if fields.has("added_tokens") else []
    found = [Listed(added_token(x), x.integer("id"), x.where) for x in entries]
    return tuple(sorted(found, key=lambda listed: listed.number or 0))


def _side(fields: JsonFields) -> str:
    """Where tokens are cut off."""
    if not fields.has("truncation"):
        return SIDES[0]
    truncation = fields.object("truncation")
    side = truncation.text("direction").lower() if truncation.has("direction") else SIDES[0]
    if side not in SIDES:
        raise truncation.fail("direction", "Right or Left")
    return side


def _template(fields: JsonFields, words: list[str]) -> Template:
    """What the file's last step puts around texts."""
    if not fields.has("post_processor"):
        raise CheckpointError(f"{fields.where}: no post_processor; {_TEMPLATES}")
    step = fields.object("post_processor")
    kind = step.text("type")
    if kind == "Sequence":
        # Byte-level steps change offsets alone; how, is for the reader of their kind to say.
        steps = [x for x in step.objects("processors") if x.text("type") != "ByteLevel"]
        if len(steps) != 1:
            raise CheckpointError(f"{step.where}: {len(steps)} templates; {_TEMPLATES}")
        step, kind = steps[0], steps[0].text("type")
    if kind in ("BertProcessing", "RobertaProcessing"):
        make = bert_template if kind == "BertProcessing" else roberta_template
        return make(_named(step, "cls", words), _named(step, "sep", words))
    if kind != "TemplateProcessing":
        raise CheckpointError(f"{step.where}: type {kind!r:.80} is not supported; {_TEMPLATES}")
    _check_ids(step, words)
    pair = _flatten(step, "pair") if step.has("pair") else ()
    found = Template(_flatten(step, "single"), pair)
    fault = found.fault()
    if fault:
        raise CheckpointError(f"{step.where}: {fault}")
    return found


def _named(step: JsonFields, key: str, words: list[str]) -> str:
    """The token of a pair of a token and its id."""
    entry = step.items(key)
    if len(entry) != 2 or not isinstance(entry[0], str):
        raise step.fail(key, "a token and its id")
    word, number = str(entry[0]), entry[1]
    if word in words and words.index(word) != number:
        raise CheckpointError(
            f"{step.where}: {word!r} has the id {number!r:.20}, in the vocabulary "
            f"{words.index(word)}"
        )
    return word


def _check_ids(step: JsonFields, words: list[str]) -> None:
    """Refuse special tokens that stand for other ids than the vocabulary's, or for several."""
    tokens = step.object("special_tokens")
    for name in tokens.keys():
        token = tokens.object(name)
        ids = token.integers("ids")
        if len(ids) != 1:
            raise CheckpointError(f"{token.where}: {len(ids)} ids; supported is one")
        if name in words and words.index(name) != ids[0]:
            raise CheckpointError(
                f"{token.where}: has the id {ids[0]}, in the vocabulary {words.index(name)}"
            )


def _flatten(step: JsonFields, key: str) -> tuple[Part, ...]:
    """The parts of a template."""
    flat: list[Part] = []
    for item in step.objects(key):
        special = item.has("SpecialToken")
        part = item.object("SpecialToken" if special else "Sequence")
        name = part.text("id")
        flat.append(Part(name if special else f"${name}", part.integer("type_id")))
    return tuple(flat)
