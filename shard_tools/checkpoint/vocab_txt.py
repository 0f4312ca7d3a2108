"""``vocab.txt``: a vocabulary with one word per line, as BERT was first published.

In: the file, ``tokenizer_config.json`` and the names of special tokens. Out: a ``Pipeline``,
options that nothing states at BERT's defaults.
"""

from __future__ import annotations

from pathlib import Path

from shard_tools.checkpoint.tokenizer_pipeline import OwnPart, Pipeline, flag, read_text
from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from sti.text.template import Template
from sti.text.wordpiece import KIND, WordPieceSettings

_MAX_WORD_CHARS = 100  # the reference library's default

_MOST_WORDS = 1 << 20
"""Four times as many as there are."""


def read_vocab_txt(
    path: Path, settings: JsonFields, unk_token: str, template: Template
) -> Pipeline:
    """The pipeline of a vocabulary file.

    Args:
        path: the vocabulary.
        settings: ``tokenizer_config.json``.
        unk_token: the token for words without pieces.
        template: what is put around texts.

    Raises:
        CheckpointError: a word is listed twice, or an option is not supported.
    """
    if settings.has("do_basic_tokenize") and settings.raw("do_basic_tokenize") is not True:
        raise CheckpointError(
            f"{settings.where}: do_basic_tokenize {settings.raw('do_basic_tokenize')!r:.40} is not "
            "supported"
        )
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
                f"{path}: line {line} repeats {word!r:.80} of line {first_line[word]}"
            )
        first_line[word] = line
    lowercase = flag(settings, "do_lower_case", default=True)
    own = WordPieceSettings(
        lowercase=lowercase,
        strip_accents=flag(settings, "strip_accents", default=lowercase),
        clean_text=True,
        handle_chinese_chars=flag(settings, "tokenize_chinese_chars", default=True),
        unk_token=unk_token,
        continuing_prefix="##",
        max_word_chars=_MAX_WORD_CHARS,
    )
    return Pipeline(OwnPart(KIND, own, words), template, ())
