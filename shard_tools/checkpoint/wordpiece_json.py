"""The parts of a ``tokenizer.json`` that only WordPiece has: normalizer, pre-tokenizer and model.

In: the file's fields. Out: an ``OwnPart``. Only BERT's way is understood; another normalizer or
pre-tokenizer is refused.
"""

from __future__ import annotations

from shard_tools.checkpoint.tokenizer_pipeline import OwnPart, flag
from shard_tools.checkpoint.words_by_id import words_by_id
from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from sti.text.wordpiece import KIND, WordPieceSettings

SUPPORTED = (
    "supported: WordPiece with BertNormalizer, perhaps with Lowercase before or after it, and "
    "BertPreTokenizer"
)


_OPTIONS = ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word")
_STEPS = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")


def read_wordpiece(fields: JsonFields) -> OwnPart:
    """What a file says of a WordPiece tokenizer.

    Raises:
        CheckpointError: a part is malformed or not supported.
    """
    model = fields.object("model").only("type", "vocab", *_OPTIONS)
    _expect_type(_part(fields, "pre_tokenizer"), "BertPreTokenizer")
    normalizer, lowered = _bert_normalizer(fields)
    lowercase = normalizer.flag("lowercase")
    settings = WordPieceSettings(
        # Over all code points, it is the same before and after the other steps.
        lowercase=lowercase or lowered,
        strip_accents=flag(normalizer, "strip_accents", default=lowercase),
        clean_text=normalizer.flag("clean_text"),
        handle_chinese_chars=normalizer.flag("handle_chinese_chars"),
        unk_token=model.text("unk_token"),
        continuing_prefix=model.text("continuing_subword_prefix"),
        max_word_chars=model.integer("max_input_chars_per_word", least=1),
    )
    return OwnPart(KIND, settings, words_by_id(model.object("vocab")))


def _part(fields: JsonFields, key: str) -> JsonFields:
    """A part of the pipeline that must exist."""
    if not fields.has(key):
        raise CheckpointError(f"{fields.where}: no {key}; {SUPPORTED}")
    return fields.object(key)


def _expect_type(fields: JsonFields, expected: str, *members: str) -> None:
    """Refuse a part of the pipeline of another type, or with other members."""
    found = fields.text("type")
    if found != expected:
        raise CheckpointError(f"{fields.where}: type {found!r:.80} is not supported; {SUPPORTED}")
    fields.only("type", *members)


def _bert_normalizer(fields: JsonFields) -> tuple[JsonFields, bool]:
    """The BertNormalizer, and whether there is a Lowercase step beside it."""
    normalizer = _part(fields, "normalizer")
    steps = [normalizer]
    if normalizer.text("type") == "Sequence":
        steps = normalizer.only("type", "normalizers").objects("normalizers")
    if not steps:
        raise CheckpointError(f"{normalizer.where}: an empty Sequence; {SUPPORTED}")
    others = [step for step in steps if step.text("type") != "Lowercase"]
    if not others:
        raise CheckpointError(f"{normalizer.where}: nothing but Lowercase; {SUPPORTED}")
    for step in others:
        _expect_type(step, "BertNormalizer", *_STEPS)
    if len(others) > 1:
        raise CheckpointError(f"{normalizer.where}: two BertNormalizers; {SUPPORTED}")
    return others[0], len(steps) > 1
