"""A small byte-level BPE, trained by the reference library on the golden sentences."""

from __future__ import annotations

import functools
import json
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from tests.support.paths import ROOT

SENTENCES = (
    (ROOT / "tests" / "golden" / "tokenizer_sentences.txt").read_text(encoding="utf-8").splitlines()
)


@functools.cache
def _trained() -> str:
    """The JSON of a tokenizer of 700 words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*SENTENCES, "a     b" * 9, "=" * 64], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 1), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer.to_str()


def trained_json() -> dict[str, Any]:
    """A parsed ``tokenizer.json``, the caller's own."""
    parsed: dict[str, Any] = json.loads(_trained())
    return parsed
