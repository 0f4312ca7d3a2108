"""``tokenizer.json``: a whole tokenizer, as the ``tokenizers`` library writes it.

In: the file. Out: a ``WordPiecePipeline``. Only BERT's pipeline is understood; another normalizer,
pre-tokenizer, model or template is refused. Padding and truncation that are stored in the file are
settings of whoever saved it, and ignored.
"""

from __future__ import annotations

import string
from pathlib import Path

from shard_tools.checkpoint.tokenizer_pipeline import WordPiecePipeline, flag, read_object
from shard_tools.checkpoint.words_by_id import expect_encodable, words_by_id
from sti.errors import CheckpointError
from sti.json_fields import JsonFields

SUPPORTED = "supported: WordPiece with BertNormalizer, BertPreTokenizer and BERT's [CLS] A [SEP] B"
_MATCHING = ("single_word", "lstrip", "rstrip", "normalized")  # options of added tokens
_PUNCTUATION = frozenset(string.punctuation)


def read_tokenizer_json(path: Path) -> WordPiecePipeline:
    """The pipeline of a tokenizer file.

    Raises:
        CheckpointError: the file is malformed, or describes another kind of tokenizer.
    """
    fields = read_object(path)
    model = fields.object("model")
    # Files of the library's first versions leave the type out.
    kind = "WordPiece" if model.has("continuing_subword_prefix") else "unknown"
    _expect_type(model, "WordPiece", found=model.text("type") if model.has("type") else kind)
    _expect_type(_part(fields, "pre_tokenizer"), "BertPreTokenizer")
    normalizer, lowered = _bert_normalizer(fields)
    cls_token, sep_token = _template(fields)
    prefix = model.text("continuing_subword_prefix")
    words = words_by_id(model.object("vocab"))
    special_tokens = _added_tokens(path, fields, words, prefix)
    lowercase = normalizer.flag("lowercase")
    return WordPiecePipeline(
        words=words,
        lowercase=lowercase or lowered,
        strip_accents=flag(normalizer, "strip_accents", default=lowercase),
        clean_text=normalizer.flag("clean_text"),
        handle_chinese_chars=normalizer.flag("handle_chinese_chars"),
        unk_token=model.text("unk_token"),
        cls_token=cls_token,
        sep_token=sep_token,
        continuing_prefix=prefix,
        max_word_chars=model.integer("max_input_chars_per_word", least=1),
        special_tokens=special_tokens,
    )


def _part(fields: JsonFields, key: str) -> JsonFields:
    """A part of the pipeline that must exist."""
    if not fields.has(key):
        raise CheckpointError(f"{fields.where}: no {key}; {SUPPORTED}")
    return fields.object(key)


def _expect_type(fields: JsonFields, expected: str, *, found: str | None = None) -> None:
    """Refuse a part of the pipeline of another type."""
    found = fields.text("type") if found is None else found
    if found != expected:
        raise CheckpointError(f"{fields.where}: type {found!r} is not supported; {SUPPORTED}")


def _bert_normalizer(fields: JsonFields) -> tuple[JsonFields, bool]:
    """The BertNormalizer, and whether a Lowercase step follows it."""
    normalizer = _part(fields, "normalizer")
    steps = [normalizer]
    if normalizer.text("type") == "Sequence":
        steps = normalizer.objects("normalizers")
    if not steps:
        raise CheckpointError(f"{normalizer.where}: an empty Sequence; {SUPPORTED}")
    _expect_type(steps[0], "BertNormalizer")
    for step in steps[1:]:
        _expect_type(step, "Lowercase")
    return steps[0], len(steps) > 1


def _template(fields: JsonFields) -> tuple[str, str]:
    """CLS and SEP, from the step that puts them around the text."""
    step = _part(fields, "post_processor")
    if step.text("type") == "BertProcessing":
        cls_entry, sep_entry = step.items("cls"), step.items("sep")
        if cls_entry and sep_entry:
            return str(cls_entry[0]), str(sep_entry[0])
        raise step.fail("cls", "a token and its id")
    _expect_type(step, "TemplateProcessing")
    single, pair = _flatten(step, "single"), _flatten(step, "pair")
    cls_token, sep_token = (single[0][0], single[-1][0]) if single else ("", "")
    first = [(cls_token, 0), ("$A", 0), (sep_token, 0)]
    if single != first or pair != [*first, ("$B", 1), (sep_token, 1)]:
        raise CheckpointError(f"{step.where}: an unknown template; {SUPPORTED}")
    return cls_token, sep_token


def _flatten(step: JsonFields, key: str) -> list[tuple[str, int]]:
    """``(token, type id)`` of a template, with ``$A`` and ``$B`` for the texts."""
    flat: list[tuple[str, int]] = []
    for item in step.objects(key):
        special = item.has("SpecialToken")
        part = item.object("SpecialToken" if special else "Sequence")
        flat.append(
            (part.text("id") if special else f"${part.text('id')}", part.integer("type_id"))
        )
    return flat


def _added_tokens(path: Path, fields: JsonFields, words: list[str], prefix: str) -> tuple[str, ...]:
    """Tokens recognised verbatim; those beyond the vocabulary are appended to ``words``."""
    ids = {word: number for number, word in enumerate(words)}
    found: list[str] = []
    added = fields.objects("added_tokens") if fields.has("added_tokens") else []
    for entry in sorted(added, key=lambda entry: entry.integer("id")):
        word, number = entry.text("content"), entry.integer("id")
        if any(flag(entry, key, default=False) for key in _MATCHING):
            raise CheckpointError(
                f"{entry.where}: {word!r} is matched in a special way ({', '.join(_MATCHING)}), "
                f"which is not supported"
            )
        if word not in ids and number == len(words) and _never_a_piece(word, prefix):
            expect_encodable(entry.where, [word])
            ids[word] = number
            words.append(word)
        if ids.get(word) != number:
            raise CheckpointError(
                f"{entry.where}: {word!r} with the id {number} does not fit the vocabulary of "
                f"{len(words)} words"
            )
        found.append(word)
    return tuple(found)


def _never_a_piece(word: str, prefix: str) -> bool:
    """Whether a word can be added to the vocabulary without being found inside other words.

    Text is split at ASCII punctuation, so a longer word that contains some is never looked up.
    """
    return len(word) > 1 and not word.startswith(prefix) and not _PUNCTUATION.isdisjoint(word)
