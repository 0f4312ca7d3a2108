"""Checkpoints with tokenizers of each kind become packs that cut text as the reference library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.text.tokenizer import Tokenizer
from tests.support.byte_bpe import trained_json
from tests.support.checkpoints import Shape, write_checkpoint
from tests.support.unigram import document

SHAPE = Shape(layers=1, positions=16, words=720)
TEXTS = (
    *("", "a", "ab abc  <mask>, <pad>b", " the d\u00f6g isn't \u65e5\u672c\u8a9e \ufb01 123"),
    *("\n<mask> \u00bd\x01 <s>ab</s> a" * 3, "\u2581a  b \U0001f468\u200d\U0001f469 " * 9),
)
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def added(number: int, text: str, **flags: bool) -> dict[str, object]:
    return {"id": number, "content": text, "special": True, **FLAGS, **flags}


def byte_bpe() -> dict[str, Any]:
    raw = trained_json()
    raw["post_processor"]["add_prefix_space"] = raw["pre_tokenizer"]["add_prefix_space"] = True
    return raw


def unigram() -> dict[str, Any]:
    raw = document("first, split")
    raw["model"]["vocab"].append(["</s>", 0.0])
    number = len(raw["model"]["vocab"]) - 1
    raw["post_processor"] = {
        "type": "RobertaProcessing",
        "sep": ["</s>", number],
        "cls": ["<s>", 1],
    }
    raw["post_processor"] |= {"trim_offsets": False, "add_prefix_space": False}
    raw["added_tokens"] = [added(number, "</s>")]
    return raw


def checkpoint(directory: Path, raw: dict[str, Any], side: str) -> tokenizers.Tokenizer:
    """A checkpoint with a tokenizer, and that of the reference library."""
    write_checkpoint(directory, shape=SHAPE)
    (directory / "vocab.txt").unlink()
    count = len(raw["model"]["vocab"])
    mask = added(count, "<mask>", lstrip=True)
    raw["added_tokens"] += [mask, added(count + 1, "<pad>", normalized=True, rstrip=True)]
    (directory / "tokenizer.json").write_text(json.dumps(raw))
    settings = {"tokenizer_class": "PreTrainedTokenizer", "truncation_side": side}
    settings |= {"pad_token": "<pad>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    found = tokenizers.Tokenizer.from_str(json.dumps(raw))
    found.enable_truncation(SHAPE.positions, direction=side)
    return found


def assert_same(ours: Tokenizer, theirs: tokenizers.Tokenizer, *texts: str) -> None:
    found, wanted = ours.encode(*texts), theirs.encode(*texts)
    assert found.ids.tolist() == wanted.ids
    assert found.type_ids.tolist() == wanted.type_ids
    assert list(map(tuple, found.offsets.tolist())) == wanted.offsets
    assert found.word_ids.tolist() == [-1 if word is None else word for word in wanted.word_ids]


@pytest.mark.parametrize(("make", "side"), [(byte_bpe, "left"), (unigram, "right")])
def test_a_pack_cuts_texts_and_pairs_as_the_reference_library(
    make: Any, side: str, tmp_path: Path
) -> None:
    theirs = checkpoint(tmp_path / "checkpoint", make(), side)
    output = tmp_path / "out.sti.safetensors"
    calibration = tmp_path / "texts"
    calibration.write_text("ab abc\n")
    build(tmp_path / "checkpoint", output, BuildOptions(calibration=calibration))
    with PackReader.open(output) as reader:
        ours = pack_tokenizer(reader)
    for text in TEXTS:
        assert_same(ours, theirs, text)
        assert_same(ours, theirs, text, TEXTS[3])
