"""A checkpoint's tokenizer files, turned into what a pack carries.

Knows no weights. In: a checkpoint directory with ``config.json`` and either ``tokenizer.json`` or
``vocab.txt`` (with ``tokenizer_config.json`` and ``special_tokens_map.json`` where they exist), and
sentence-transformers' ``sentence_bert_config.json``. Out: a ``TokenizerSpec`` and a vocabulary
blob for ``sti.text.wordpiece.Tokenizer``.

Only BERT's WordPiece pipeline is understood; anything else is refused rather than approximated.
Where both tokenizer files exist ``tokenizer.json`` counts. Padding and truncation stored in it
are settings of whoever saved it, and ignored.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from sti.text.wordpiece import KIND, TokenizerSpec

SUPPORTED = "supported: WordPiece with BertNormalizer, BertPreTokenizer and BERT's [CLS] A [SEP] B"
_LEAST_TOKENS = 3  # the special tokens of a pair
_MAX_WORD_CHARS = 100  # the reference library's default
_MATCHING = ("single_word", "lstrip", "rstrip", "normalized")  # options of added tokens
_PUNCTUATION = frozenset(string.punctuation)


@dataclass(frozen=True, slots=True)
class _Pipeline:
    """What one of the two kinds of tokenizer file says, sequence limit apart."""

    words: list[str]
    lowercase: bool
    strip_accents: bool
    clean_text: bool
    handle_chinese_chars: bool
    unk_token: str
    cls_token: str
    sep_token: str
    continuing_prefix: str
    max_word_chars: int
    special_tokens: tuple[str, ...]


def load_tokenizer(checkpoint_dir: Path) -> tuple[TokenizerSpec, bytes]:
    """Tokenizer of a checkpoint.

    Args:
        checkpoint_dir: a Hugging Face style checkpoint directory.

    Returns:
        The spec, and the vocabulary as UTF-8 words joined by newlines (id = line number).

    Raises:
        CheckpointError: a file is missing, malformed, contradicts another, or describes another
            kind of tokenizer; names the file and, where there is one, the line.
    """
    config = _read_object(checkpoint_dir / "config.json")
    settings = _read_optional(checkpoint_dir / "tokenizer_config.json")
    special = _read_optional(checkpoint_dir / "special_tokens_map.json")
    sentence = _read_optional(checkpoint_dir / "sentence_bert_config.json")
    full, plain = checkpoint_dir / "tokenizer.json", checkpoint_dir / "vocab.txt"
    if full.is_file():
        source, pipeline = full, _from_tokenizer_json(full)
    elif plain.is_file():
        source, pipeline = plain, _from_vocab_txt(plain, settings, special)
    else:
        raise CheckpointError(f"{checkpoint_dir}: neither tokenizer.json nor vocab.txt is there")
    pad_token = _named_token("pad_token", settings, special, default="[PAD]")
    _check_vocabulary(source, pipeline, pad_token, config.integer("vocab_size", least=1))
    spec = TokenizerSpec(
        kind=KIND,
        # sentence-transformers may lower the text before an otherwise cased tokenizer sees it.
        lowercase=_flag(sentence, "do_lower_case", default=False) or pipeline.lowercase,
        strip_accents=pipeline.strip_accents,
        clean_text=pipeline.clean_text,
        handle_chinese_chars=pipeline.handle_chinese_chars,
        unk_token=pipeline.unk_token,
        cls_token=pipeline.cls_token,
        sep_token=pipeline.sep_token,
        pad_token=pad_token,
        continuing_prefix=pipeline.continuing_prefix,
        max_word_chars=pipeline.max_word_chars,
        max_tokens=_max_tokens(config, settings, sentence),
        special_tokens=pipeline.special_tokens,
    )
    return spec, "\n".join(pipeline.words).encode("utf-8")


def _read_text(path: Path) -> str:
    """A UTF-8 file."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CheckpointError(f"{path}: line {line} is not UTF-8: {error.reason}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _read_object(path: Path) -> JsonFields:
    """A JSON file that holds one object."""
    try:
        value = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error
    return JsonFields(value, where=str(path), error=CheckpointError)


def _read_optional(path: Path) -> JsonFields:
    """The same, or an object without fields where the file does not exist."""
    if path.is_file():
        return _read_object(path)
    return JsonFields({}, where=str(path), error=CheckpointError)


def _named_token(key: str, *sources: JsonFields, default: str) -> str:
    """A special token that the first of ``sources`` to name it writes as text or as an object."""
    for source in sources:
        value = source.raw(key)
        if isinstance(value, str):
            return value
        if isinstance(value, Mapping):
            return source.object(key).text("content")
    return default


def _max_tokens(config: JsonFields, settings: JsonFields, sentence: JsonFields) -> int:
    """The sequence limit: the most specific file that states one, within the position table."""
    positions = config.integer("max_position_embeddings", least=_LEAST_TOKENS)
    for source, key in ((sentence, "max_seq_length"), (settings, "model_max_length")):
        if source.has(key):
            # Tokenizers without a limit write 1e30 here, as an integer or as a float.
            return int(min(positions, source.number(key, least=_LEAST_TOKENS)))
    return positions


def _check_vocabulary(source: Path, pipeline: _Pipeline, pad_token: str, size: int) -> None:
    """Refuse vocabularies that the model or the tokenizer could not work with."""
    words = pipeline.words
    if len(words) > size:
        raise CheckpointError(
            f"{source}: {len(words)} words, but config.json says vocab_size {size}: the files "
            f"belong to different models"
        )
    known = set(words)
    named = {
        "unk_token": pipeline.unk_token,
        "cls_token": pipeline.cls_token,
        "sep_token": pipeline.sep_token,
        "pad_token": pad_token,
    }
    for key, word in named.items():
        if word not in known:
            raise CheckpointError(f"{source}: {key} {word!r} is not in the vocabulary")


def _from_vocab_txt(path: Path, settings: JsonFields, special: JsonFields) -> _Pipeline:
    """A vocabulary with one word a line, and options with BERT's defaults."""
    if settings.raw("do_basic_tokenize") is False:
        raise CheckpointError(f"{settings.where}: do_basic_tokenize false is not supported")
    words = [line.removesuffix("\r") for line in _read_text(path).split("\n")]
    if words[-1] == "":
        words.pop()  # the newline that ends the last line
    first_line: dict[str, int] = {}
    for line, word in enumerate(words, start=1):
        if word in first_line:
            raise CheckpointError(
                f"{path}: line {line} repeats {word!r} of line {first_line[word]}"
            )
        first_line[word] = line
    names = ("unk", "sep", "pad", "cls", "mask")
    tokens = {
        name: _named_token(f"{name}_token", settings, special, default=f"[{name.upper()}]")
        for name in names
    }
    lowercase = _flag(settings, "do_lower_case", default=True)
    return _Pipeline(
        words=words,
        lowercase=lowercase,
        strip_accents=_flag(settings, "strip_accents", default=lowercase),
        clean_text=True,
        handle_chinese_chars=_flag(settings, "tokenize_chinese_chars", default=True),
        unk_token=tokens["unk"],
        cls_token=tokens["cls"],
        sep_token=tokens["sep"],
        continuing_prefix="##",
        max_word_chars=_MAX_WORD_CHARS,
        special_tokens=tuple(word for word in tokens.values() if word in first_line),
    )


def _flag(fields: JsonFields, key: str, *, default: bool) -> bool:
    """A boolean that may be absent or null."""
    return fields.flag(key) if fields.has(key) else default


def _from_tokenizer_json(path: Path) -> _Pipeline:
    """The whole pipeline, as the ``tokenizers`` library writes it."""
    fields = _read_object(path)
    model = fields.object("model")
    # Files of the library's first versions leave the type out.
    kind = "WordPiece" if model.has("continuing_subword_prefix") else "unknown"
    _expect_type(model, "WordPiece", found=model.text("type") if model.has("type") else kind)
    _expect_type(_part(fields, "pre_tokenizer"), "BertPreTokenizer")
    normalizer, lowered = _bert_normalizer(fields)
    cls_token, sep_token = _template(fields)
    prefix = model.text("continuing_subword_prefix")
    words = _words_by_id(path, model.object("vocab"))
    special_tokens = _added_tokens(path, fields, words, prefix)
    lowercase = normalizer.flag("lowercase")
    return _Pipeline(
        words=words,
        lowercase=lowercase or lowered,
        strip_accents=_flag(normalizer, "strip_accents", default=lowercase),
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
    """A part of the pipeline that has to be there."""
    if not fields.has(key):
        raise CheckpointError(f"{fields.where}: no {key}; {SUPPORTED}")
    return fields.object(key)


def _expect_type(fields: JsonFields, expected: str, *, found: str | None = None) -> None:
    """Refuse a part of the pipeline of another type."""
    found = fields.text("type") if found is None else found
    if found != expected:
        raise CheckpointError(f"{fields.where}: type {found!r} is not supported; {SUPPORTED}")


def _bert_normalizer(fields: JsonFields) -> tuple[JsonFields, bool]:
    """The BertNormalizer, and whether Lowercase follows it."""
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


def _words_by_id(path: Path, vocab: JsonFields) -> list[str]:
    """The words in the order of their ids, which have to be 0, 1, 2, ..."""
    by_id: dict[int, str] = {}
    for word in vocab.keys():
        number = vocab.integer(word)
        if number in by_id:
            raise CheckpointError(
                f"{path}: model: vocab: {by_id[number]!r} and {word!r} share the id {number}"
            )
        by_id[number] = word
    missing = next((number for number in range(len(by_id)) if number not in by_id), None)
    if missing is not None:
        raise CheckpointError(f"{path}: model: vocab: no word has the id {missing}")
    words = [by_id[number] for number in range(len(by_id))]
    _expect_encodable(path, words)
    return words


def _expect_encodable(path: Path, words: Iterable[str]) -> None:
    """Refuse words that a vocabulary blob cannot hold."""
    for word in words:
        if "\n" in word or any("\ud800" <= char <= "\udfff" for char in word):
            raise CheckpointError(f"{path}: {word!r} holds a newline or a lone surrogate")


def _added_tokens(path: Path, fields: JsonFields, words: list[str], prefix: str) -> tuple[str, ...]:
    """Tokens recognised verbatim; those beyond the vocabulary are appended to ``words``."""
    ids = {word: number for number, word in enumerate(words)}
    found: list[str] = []
    added = fields.objects("added_tokens") if fields.has("added_tokens") else []
    for entry in sorted(added, key=lambda entry: entry.integer("id")):
        word, number = entry.text("content"), entry.integer("id")
        if any(_flag(entry, key, default=False) for key in _MATCHING):
            raise CheckpointError(
                f"{entry.where}: {word!r} is matched in a special way ({', '.join(_MATCHING)}), "
                f"which is not supported"
            )
        if word not in ids and number == len(words) and _never_a_piece(word, prefix):
            _expect_encodable(path, [word])
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
    """Whether a word beyond the vocabulary can join it without being found inside other words.

    Text is split at ASCII punctuation, so a longer word that holds some never comes up.
    """
    return len(word) > 1 and not word.startswith(prefix) and not _PUNCTUATION.isdisjoint(word)
