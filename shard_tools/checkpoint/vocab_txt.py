"""``vocab.txt``: a vocabulary with one word per line, as BERT was first published.

In: the file, and the options that lie beside it in ``tokenizer_config.json`` and
``special_tokens_map.json``. Out: a ``WordPiecePipeline``, options that nothing states at BERT's
defaults.
"""

from __future__ import annotations

from pathlib import Path

from shard_tools.checkpoint.tokenizer_pipeline import (
    WordPiecePipeline,
    flag,
    named_token,
    read_text,
)
from sti.errors import CheckpointError
from sti.json_fields import JsonFields

_MAX_WORD_CHARS = 100  # the reference library's default

_MOST_WORDS = 1 << 20
"""Four times as many as there are."""


def read_vocab_txt(path: Path, settings: JsonFields, special: JsonFields) -> WordPiecePipeline:
    """The pipeline of a vocabulary file.

    Args:
        path: the vocabulary.
        settings: ``tokenizer_config.json``.
        special: ``special_tokens_map.json``.

    Raises:
        CheckpointError: a word is listed twice, or an option is not supported.
    """
    if settings.raw("do_basic_tokenize") is False:
        raise CheckpointError(f"{settings.where}: do_basic_tokenize false is not supported")
    text = read_text(path)
    if text.count("\n") > _MOST_WORDS:
        raise CheckpointError(f"{path}: more than the {_MOST_WORDS} words that a model can have")
    words = [line.removesuffix("\r") for line in text.split("\n")]
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
        name: named_token(f"{name}_token", settings, special, default=f"[{name.upper()}]")
        for name in names
    }
    lowercase = flag(settings, "do_lower_case", default=True)
    return WordPiecePipeline(
        words=words,
        lowercase=lowercase,
        strip_accents=flag(settings, "strip_accents", default=lowercase),
        clean_text=True,
        handle_chinese_chars=flag(settings, "tokenize_chinese_chars", default=True),
        unk_token=tokens["unk"],
        cls_token=tokens["cls"],
        sep_token=tokens["sep"],
        continuing_prefix="##",
        max_word_chars=_MAX_WORD_CHARS,
        special_tokens=tuple(word for word in tokens.values() if word in first_line),
    )
