"""Reading byte-level BPE: what is understood, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shard_tools.checkpoint.byte_bpe_json import (
    read_byte_bpe,
    read_vocab_and_merges,
)
from shard_tools.checkpoint.class_settings import roberta_settings
from shard_tools.checkpoint.tokenizer_pipeline import OwnPart
from sti.errors import CheckpointError
from sti.json_fields import JsonFields
from tests.support.byte_bpe import trained_json


def read(raw: dict[str, Any]) -> OwnPart:
    return read_byte_bpe(JsonFields(raw, where="tokenizer.json", error=CheckpointError))


def config(**fields: object) -> JsonFields:
    return JsonFields(fields, where="tokenizer_config.json", error=CheckpointError)


def same(one: OwnPart, other: OwnPart) -> bool:
    equal = all(np.array_equal(one.tables[name], other.tables[name]) for name in one.tables)
    return equal and one.words == other.words and one.settings == other.settings


def write_two_files(directory: Path, raw: dict[str, Any]) -> Path:
    merges = "".join(" ".join(merge) + "\n" for merge in raw["model"]["merges"])
    (directory / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    vocab = directory / "vocab.json"
    vocab.write_text(json.dumps(raw["model"]["vocab"]), encoding="utf-8")
    return vocab


def test_both_kinds_of_files_say_the_same(tmp_path: Path) -> None:
    raw = trained_json()
    assert same(
        read_vocab_and_merges(write_two_files(tmp_path, raw), roberta_settings(config())), read(raw)
    )
    prefixed = read_vocab_and_merges(
        tmp_path / "vocab.json", roberta_settings(config(add_prefix_space=True))
    )
    assert prefixed.settings.add_prefix_space and prefixed.settings.trim_prefix_space


def test_what_says_the_same_is_read_alike() -> None:
    raw, plain = trained_json(), read(trained_json())
    model = raw["model"]
    model["merges"] = [" ".join(merge) for merge in model["merges"]]
    model.update(unk_token="<s>", fuse_unk=True, byte_fallback=True, dropout=0.0)
    model.update(continuing_subword_prefix="", end_of_word_suffix="")
    del model["type"]
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [raw["pre_tokenizer"]]}
    flags = {key: raw["post_processor"][key] for key in ("trim_offsets", "add_prefix_space")}
    trimming = {"type": "ByteLevel", **flags}
    template = {"type": "TemplateProcessing"}
    raw["post_processor"] = {"type": "Sequence", "processors": [trimming, template]}
    assert same(read(raw), plain)


def test_a_template_alone_does_not_trim() -> None:
    raw = trained_json()
    raw["post_processor"] = {"type": "TemplateProcessing"}
    assert not read(raw).settings.trim_offsets


def put(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(raw: Any) -> None:
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = value

    return change


def without_a_byte(raw: dict[str, Any]) -> None:
    vocab = raw["model"]["vocab"]
    vocab["other"] = vocab.pop("\u0100")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("normalizer", value={"type": "NFC"}), "normalizer 'NFC'"),
        (put("pre_tokenizer", value={"type": "Whitespace"}), "pre_tokenizer: Whitespace"),
        (put("pre_tokenizer", "type", value="Split"), "pre_tokenizer: Split"),
        (put("pre_tokenizer", value=None), "no pre_tokenizer; supported"),
        (put("pre_tokenizer", "fast", value=1), "pre_tokenizer: unknown field 'fast'"),
        (put("model", "fast", value=1), "model: unknown field 'fast'"),
        (put("post_processor", "type", value="Other"), "post_processor: type 'Other'"),
        (put("model", "type", value="Unigram"), "model: type 'Unigram'"),
        (put("model", "dropout", value=0.1), "model: dropout 0.1"),
        (put("model", "end_of_word_suffix", value="</w>"), "end_of_word_suffix '</w>'"),
        (put("model", "continuing_subword_prefix", value="##"), "continuing_subword_prefix '##'"),
        (put("model", "merges", 3, value=["\u0120", "nowhere"]), r"merges\[3\]: 'nowhere'"),
        (put("model", "merges", 3, value="one"), r"merges\[3\] must be two words"),
        (put("model", "merges", 3, value="a b c"), r"merges\[3\] must be two words"),
        (put("model", "merges", 3, value=[1, 2]), r"merges\[3\] must be two words"),
        (put("model", "vocab", "a", value=-1), "vocab: field 'a' must be an integer"),
        (put("model", "vocab", "a", value=1.5), "vocab: field 'a' must be an integer"),
        (put("model", "vocab", "a", value=0), "vocab: .* share the id 0"),
        (put("model", "vocab", "a", value=7000), "vocab: no word has the id"),
        (without_a_byte, "byte 0x00, .* is not in the vocabulary"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    change: Callable[[dict[str, Any]], None], told: str
) -> None:
    raw = trained_json()
    change(raw)
    with pytest.raises(CheckpointError, match=f"^tokenizer.json: .*{told}"):
        read(raw)


def test_a_merge_that_is_listed_twice_is_refused() -> None:
    raw = trained_json()
    raw["model"]["merges"].append(raw["model"]["merges"][0])
    with pytest.raises(CheckpointError, match="merged before"):
        read(raw)


def test_merges_are_missed_and_their_lines_are_named(tmp_path: Path) -> None:
    raw = trained_json()
    raw["model"]["merges"][4] = ("\u0120", "nowhere")
    vocab = write_two_files(tmp_path, raw)
    with pytest.raises(CheckpointError, match=r"merges\.txt: line 6: 'nowhere'"):
        read_vocab_and_merges(vocab, roberta_settings(config()))
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"merges\.txt: is missing"):
        read_vocab_and_merges(vocab, roberta_settings(config()))
