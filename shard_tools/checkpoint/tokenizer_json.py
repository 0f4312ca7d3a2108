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
from sti.text.template import FIRST, SECOND, Part, Template, bert_template, roberta_template
from sti.text.tokenizer_spec import SIDES

READERS: Mapping[str, Callable[[JsonFields], OwnPart]] = {
    "WordPiece": read_wordpiece,
    "Unigram": read_unigram,
    "BPE": read_byte_bpe,
}
"""Of the fields of a file, by the type of its model."""

_TEXTS = {"A": FIRST, "B": SECOND}
"""What a template calls the texts."""

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
    template, ids = _template(fields)
    return Pipeline(own, template, _added(fields), ids, _side(fields))


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


def _template(fields: JsonFields) -> tuple[Template, Mapping[str, int]]:
    """What the file's last step puts around texts, and which ids it says that the tokens have."""
    if not fields.has("post_processor"):
        raise CheckpointError(f"{fields.where}: no post_processor; {_TEMPLATES}")
    step = fields.object("post_processor")
    kind = step.text("type")
    if kind == "Sequence":
        # Byte-level steps change offsets alone; how, is for the reader of their kind to say.
        steps = step.only("type", "processors").objects("processors")
        steps = [x for x in steps if x.text("type") != "ByteLevel"]
        if len(steps) != 1:
            raise CheckpointError(f"{step.where}: {len(steps)} templates; {_TEMPLATES}")
        step, kind = steps[0], steps[0].text("type")
    if kind in ("BertProcessing", "RobertaProcessing"):
        step.only("type", "cls", "sep", "trim_offsets", "add_prefix_space")
        make = bert_template if kind == "BertProcessing" else roberta_template
        (cls_token, cls_id), (sep_token, sep_id) = _named(step, "cls"), _named(step, "sep")
        return make(cls_token, sep_token), {cls_token: cls_id, sep_token: sep_id}
    if kind != "TemplateProcessing":
        raise CheckpointError(f"{step.where}: type {kind!r:.80} is not supported; {_TEMPLATES}")
    step.only("type", "single", "pair", "special_tokens")
    pair = _flatten(step, "pair") if step.has("pair") else ()
    found = Template(_flatten(step, "single"), pair)
    fault = found.fault()
    if fault:
        raise CheckpointError(f"{step.where}: {fault}")
    return found, _ids(step)


def _named(step: JsonFields, key: str) -> tuple[str, int]:
    """A token and its id."""
    entry = step.items(key)
    if len(entry) != 2 or not isinstance(entry[0], str) or type(entry[1]) is not int:
        raise step.fail(key, "a token and its id")
    return entry[0], entry[1]


def _ids(step: JsonFields) -> Mapping[str, int]:
    """The ids of special tokens; refuses those that stand for several."""
    tokens = step.object("special_tokens")
    found: dict[str, int] = {}
    for name in tokens.keys():
        token = tokens.object(name).only("id", "ids", "tokens")
        ids = token.integers("ids")
        if len(ids) != 1:
            raise CheckpointError(f"{token.where}: {len(ids)} ids; supported is one")
        found[name] = ids[0]
    return found


def _flatten(step: JsonFields, key: str) -> tuple[Part, ...]:
    """The parts of a template."""
    flat: list[Part] = []
    for item in step.objects(key):
        item.only("SpecialToken", "Sequence")
        special = item.has("SpecialToken")
        part = item.object("SpecialToken" if special else "Sequence").only("id", "type_id")
        name = part.text("id")
        if not special and name not in _TEXTS:
            raise part.fail("id", " or ".join(_TEXTS))
        if special and name in _TEXTS.values():
            raise part.fail("id", "another, which does not stand for a text")
        flat.append(Part(name if special else _TEXTS[name], part.integer("type_id")))
    return tuple(flat)
