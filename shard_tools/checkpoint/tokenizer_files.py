"""Reading a checkpoint's tokenizer files.

In: a checkpoint directory with ``config.json`` and either ``tokenizer.json``, ``vocab.txt``, or
``vocab.json`` and ``merges.txt`` (with ``tokenizer_config.json``, ``special_tokens_map.json`` and
``added_tokens.json`` where they exist), and sentence-transformers' own file (``sentence_file``).
Out: a spec, a vocabulary blob and tables for ``sti.text.tokenizer.Tokenizer``. Knows nothing of
weights.

Anything that is not supported is refused rather than approximated. Where several tokenizer files
exist, the first of these is used; padding and lengths of truncation stored in it are ignored, as
they are settings of the run that saved it. Where files contradict, transformers' precedence holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from shard_tools.checkpoint.added_tokens import TokenFiles, with_added
from shard_tools.checkpoint.byte_bpe_json import read_vocab_and_merges
from shard_tools.checkpoint.class_settings import of_class, roberta_settings
from shard_tools.checkpoint.sentence_file import sentence_file
from shard_tools.checkpoint.tokenizer_classes import CLASSES, TokenizerClass, tokenizer_class
from shard_tools.checkpoint.tokenizer_json import read_tokenizer_json
from shard_tools.checkpoint.tokenizer_pipeline import Pipeline, flag, read_object, read_optional
from shard_tools.checkpoint.vocab_txt import read_vocab_txt
from sti.errors import CheckpointError, PackFormatError
from sti.json_fields import JsonFields
from sti.text.byte_bpe import KIND as BYTE_BPE
from sti.text.template import FIRST, Template, bert_template, roberta_template
from sti.text.tokenizer_spec import SIDES, TokenizerSpec
from sti.text.unigram import KIND as UNIGRAM
from sti.text.wordpiece import KIND as WORDPIECE

_LONGEST_WORD = 4096
"""Characters: longer words of a text are unknown to every tokenizer."""
_POSITIONS = 512
"""Where config.json does not say: what transformers takes for all families."""
_LEAST_TOKENS = 3  # the special tokens of a pair


class TokenizerParts(NamedTuple):
    """What a ``Tokenizer`` is made of."""

    spec: TokenizerSpec
    vocabulary: bytes
    """UTF-8 words joined by newlines; a word's id is its line, counted from 0."""
    tables: Mapping[str, NDArray[Any]]
    """What the kind needs besides, by the names that it lists."""


def load_tokenizer(checkpoint_dir: Path) -> TokenizerParts:
    """The tokenizer of a checkpoint.

    Args:
        checkpoint_dir: a Hugging Face style checkpoint directory.

    Raises:
        CheckpointError: a file is missing, malformed, contradicts another, or describes another
            kind of tokenizer; names the file and, where there is one, the line.
    """
    config = read_object(checkpoint_dir / "config.json")
    settings, special, added, sentence = (
        read_optional(checkpoint_dir / name)
        for name in (
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            sentence_file(checkpoint_dir),
        )
    )
    names = ("tokenizer.json", "vocab.txt", "vocab.json")
    full, plain, pairs = (checkpoint_dir / name for name in names)
    if full.is_file():
        source, pipeline = full, read_tokenizer_json(full)
        known = tokenizer_class(config, settings, _MODEL_TYPES[pipeline.own.kind])
        files = TokenFiles(settings, special, added, known)
        unk = files.named("unk_token") or ""
        pipeline = of_class(pipeline, settings, known, _around(files, known), unk)
    elif plain.is_file():
        known = tokenizer_class(config, settings, _MODEL_TYPES[WORDPIECE])
        known = known if known.tokens else CLASSES["BertTokenizer"]
        files = TokenFiles(settings, special, added, known)
        unk = files.named("unk_token") or ""
        pipeline = read_vocab_txt(plain, settings, unk, _around(files, known))
        source = plain
    elif pairs.is_file():
        known = tokenizer_class(config, settings, _MODEL_TYPES[BYTE_BPE])
        known = known if known.tokens else CLASSES["RobertaTokenizer"]
        files = TokenFiles(settings, special, added, known)
        own = read_vocab_and_merges(pairs, roberta_settings(settings))
        source, pipeline = pairs, Pipeline(own, _around(files, known), ())
    else:
        raise CheckpointError(
            f"{checkpoint_dir}: neither tokenizer.json, nor vocab.txt, nor vocab.json is there"
        )
    words, tokens = with_added(pipeline.own.words, files.listed(pipeline.added))
    ends = pipeline.template.single[0].what, pipeline.template.single[-1].what
    cls_token, sep_token = (
        found if found != FIRST else files.named(key) or ""
        for key, found in zip(("cls_token", "sep_token"), ends, strict=True)
    )
    pad_token = files.named("pad_token") or "[PAD]"
    named = {"cls_token": cls_token, "sep_token": sep_token, "pad_token": pad_token}
    _check_vocabulary(source, words, named, config.integer("vocab_size", least=1))
    _check_template(source, words, pipeline)
    for word in pipeline.own.settings.named_words():
        if word not in pipeline.own.words:
            raise CheckpointError(f"{source}: unk_token {word!r:.80} is not in the vocabulary")
    usual = pipeline.template == bert_template(cls_token, sep_token)
    spec = TokenizerSpec(
        kind=pipeline.own.kind,
        settings=pipeline.own.settings,
        cls_token=cls_token,
        sep_token=sep_token,
        pad_token=pad_token,
        max_tokens=_max_tokens(config, settings, sentence),
        special_tokens=tuple(token.text for token in tokens if token.plain),
        added_tokens=tuple(token for token in tokens if not token.plain),
        template=None if usual else pipeline.template,
        truncation_side=_side(settings, pipeline),
        added_words=len(words) - len(pipeline.own.words),
        # sentence-transformers lowers the text before the tokenizer sees it.
        lowercase_text=flag(sentence, "do_lower_case", default=False),
    )
    try:
        TokenizerSpec.from_json(spec.to_json())
    except PackFormatError as error:
        raise CheckpointError(f"{source}: {error}") from error
    return TokenizerParts(spec, "\n".join(words).encode("utf-8"), pipeline.own.tables)


def _around(files: TokenFiles, known: TokenizerClass) -> Template:
    """What a class puts around texts."""
    make = roberta_template if known.two_separators else bert_template
    return make(files.named("cls_token") or "", files.named("sep_token") or "")


def _side(settings: JsonFields, pipeline: Pipeline) -> str:
    """Where tokens are cut off."""
    if not settings.has("truncation_side"):
        return pipeline.truncation_side
    side = settings.text("truncation_side")
    if side not in SIDES:
        raise settings.fail("truncation_side", f"one of {', '.join(SIDES)}")
    return side


def _max_tokens(config: JsonFields, settings: JsonFields, sentence: JsonFields) -> int:
    """The sequence limit, from the most specific file that has one; at most the position table."""
    positions = _POSITIONS
    if config.has("max_position_embeddings"):
        positions = config.integer("max_position_embeddings", least=_LEAST_TOKENS)
    of_settings = ("model_max_length", "max_len")  # the latter is its old name
    for source, key in ((sentence, "max_seq_length"), *((settings, key) for key in of_settings)):
        if source.has(key):
            # Tokenizers without a limit write 1e30 here, as an integer or as a float.
            return int(min(positions, source.number(key, least=_LEAST_TOKENS)))
    return positions


def _check_vocabulary(source: Path, words: list[str], named: Mapping[str, str], size: int) -> None:
    """Refuse vocabularies that do not fit the model, or lack a token that the tokenizer needs."""
    if len(words) > size:
        raise CheckpointError(
            f"{source}: {len(words)} words, but config.json says vocab_size {size}: the files "
            f"belong to different models"
        )
    if max(map(len, words), default=0) > _LONGEST_WORD:
        raise CheckpointError(f"{source}: a word has more than {_LONGEST_WORD} characters")
    known = set(words)
    for key, word in named.items():
        if word not in known:
            raise CheckpointError(f"{source}: {key} {word!r:.80} is not in the vocabulary")


def _check_template(source: Path, words: list[str], pipeline: Pipeline) -> None:
    """Refuse a template with tokens that are not there, or that the file gives other ids."""
    ids = {word: number for number, word in enumerate(words)}
    for word in sorted(pipeline.template.tokens()):
        if word not in ids:
            raise CheckpointError(
                f"{source}: post_processor: {word!r:.80} is not in the vocabulary"
            )
        stated = pipeline.template_ids.get(word, ids[word])
        if stated != ids[word]:
            raise CheckpointError(
                f"{source}: post_processor: {word!r:.80} has the id {stated}, in the vocabulary "
                f"{ids[word]}"
            )


_MODEL_TYPES = {WORDPIECE: "WordPiece", UNIGRAM: "Unigram", BYTE_BPE: "BPE"}
"""What ``tokenizer.json`` calls each kind."""
