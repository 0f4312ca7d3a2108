"""Reading a checkpoint's tokenizer files.

In: a checkpoint directory with ``config.json`` and either ``tokenizer.json`` or ``vocab.txt`` (with
``tokenizer_config.json`` and ``special_tokens_map.json`` where they exist), and
sentence-transformers' ``sentence_bert_config.json``. Out: a ``TokenizerSpec`` and a vocabulary
blob for ``sti.text.wordpiece.Tokenizer``. Knows nothing of weights.

Only BERT's WordPiece pipeline is supported; anything else is refused rather than approximated.
Where both tokenizer files exist, ``tokenizer.json`` is used; padding and truncation stored in it
are ignored, as they are settings of the run that saved it.
"""

from __future__ import annotations

from pathlib import Path

from shard_tools.checkpoint.tokenizer_json import read_tokenizer_json
from shard_tools.checkpoint.tokenizer_pipeline import (
    WordPiecePipeline,
    flag,
    named_token,
    read_object,
    read_optional,
)
from shard_tools.checkpoint.vocab_txt import read_vocab_txt
from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from sti.text.wordpiece import KIND, TokenizerSpec

_LONGEST_WORD = 4096
"""Characters: longer words of a text are unknown to every tokenizer."""
_POSITIONS = 512
"""Where config.json does not say: what transformers takes for all families."""
_LEAST_TOKENS = 3  # the special tokens of a pair


def load_tokenizer(checkpoint_dir: Path) -> tuple[TokenizerSpec, bytes]:
    """The tokenizer of a checkpoint.

    Args:
        checkpoint_dir: a Hugging Face style checkpoint directory.

    Returns:
        The spec, and the vocabulary as UTF-8 words joined by newlines (id = line number).

    Raises:
        CheckpointError: a file is missing, malformed, contradicts another, or describes another
            kind of tokenizer; names the file and, where there is one, the line.
    """
    config = read_object(checkpoint_dir / "config.json")
    settings = read_optional(checkpoint_dir / "tokenizer_config.json")
    special = read_optional(checkpoint_dir / "special_tokens_map.json")
    sentence = read_optional(checkpoint_dir / "sentence_bert_config.json")
    full, plain = checkpoint_dir / "tokenizer.json", checkpoint_dir / "vocab.txt"
    if full.is_file():
        source, pipeline = full, read_tokenizer_json(full)
    elif plain.is_file():
        source, pipeline = plain, read_vocab_txt(plain, settings, special)
    else:
        raise CheckpointError(f"{checkpoint_dir}: neither tokenizer.json nor vocab.txt is there")
    pad_token = named_token("pad_token", settings, special, default="[PAD]")
    _check_vocabulary(source, pipeline, pad_token, config.integer("vocab_size", least=1))
    spec = TokenizerSpec(
        kind=KIND,
        # sentence-transformers may lowercase the text before an otherwise cased tokenizer sees it.
        lowercase=flag(sentence, "do_lower_case", default=False) or pipeline.lowercase,
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


def _max_tokens(config: JsonFields, settings: JsonFields, sentence: JsonFields) -> int:
    """The sequence limit, from the most specific file that has one; at most the position table."""
    positions = _POSITIONS
    if config.has("max_position_embeddings"):
        positions = config.integer("max_position_embeddings", least=_LEAST_TOKENS)
    for source, key in ((sentence, "max_seq_length"), (settings, "model_max_length")):
        if source.has(key):
            # Tokenizers without a limit write 1e30 here, as an integer or as a float.
            return int(min(positions, source.number(key, least=_LEAST_TOKENS)))
    return positions


def _check_vocabulary(source: Path, pipeline: WordPiecePipeline, pad_token: str, size: int) -> None:
    """Refuse vocabularies that do not fit the model, or lack a token that the tokenizer needs."""
    words = pipeline.words
    if len(words) > size:
        raise CheckpointError(
            f"{source}: {len(words)} words, but config.json says vocab_size {size}: the files "
            f"belong to different models"
        )
    if max(map(len, words), default=0) > _LONGEST_WORD:
        raise CheckpointError(f"{source}: a word has more than {_LONGEST_WORD} characters")
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
