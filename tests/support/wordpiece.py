"""Settings of a WordPiece tokenizer as uncased BERT has them."""

from __future__ import annotations

from sti.text.tokenizer_spec import TokenizerSpec
from sti.text.wordpiece import WordPieceSettings

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SETTINGS = WordPieceSettings(
    lowercase=True,
    strip_accents=True,
    clean_text=True,
    handle_chinese_chars=True,
    unk_token="[UNK]",
    continuing_prefix="##",
    max_word_chars=100,
)
SPEC = TokenizerSpec(
    kind="wordpiece",
    settings=SETTINGS,
    cls_token="[CLS]",
    sep_token="[SEP]",
    pad_token="[PAD]",
    max_tokens=1000,
    special_tokens=SPECIAL,
)
