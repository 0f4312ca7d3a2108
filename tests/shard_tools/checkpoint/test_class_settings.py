"""What tokenizer classes of transformers make of a checkpoint's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers, processors

from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from sti.errors import CheckpointError
from sti.text.byte_bpe import ByteBpeSettings
from sti.text.tokenizer import Tokenizer
from sti.text.unigram import UnigramSettings
from tests.support.byte_bpe import trained_json
from tests.support.unigram import document

TEXTS = ("the  dog", " caf\u00e9 <mask>, isn't", "\u65e5\u672c </s> 12")
NAMED = {"pad_token": "<pad>", "mask_token": "<mask>"}
CONFIG = {"vocab_size": 800, "max_position_embeddings": 12}


def write(directory: Path, settings: dict[str, object], **files: object) -> Path:
    for name, value in {"config": CONFIG, "tokenizer_config": settings, **files}.items():
        (directory / f"{name}.json").write_text(json.dumps(value))
    return directory


def two_files(directory: Path, **settings: object) -> dict[str, Any]:
    """The old layout of RoBERTa; the model that was written."""
    model = trained_json()["model"]
    write(directory, {**NAMED, **settings}, vocab=model["vocab"])
    lines = ["#version: 0.2", *map(" ".join, model["merges"])]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return dict(model)


@pytest.mark.parametrize("trim", [None, False])
@pytest.mark.parametrize("prefix", [None, True])
def test_robertas_old_files_are_put_together_as_its_class_does(
    tmp_path: Path, prefix: bool | None, trim: bool | None
) -> None:
    told = {"add_prefix_space": prefix, "trim_offsets": trim}
    model = two_files(tmp_path, **{key: value for key, value in told.items() if value is not None})
    merges = [(left, right) for left, right in model["merges"]]
    theirs = tokenizers.Tokenizer(models.BPE(model["vocab"], merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=bool(prefix))
    theirs.pre_tokenizer = byte_level  # type: ignore[assignment]
    mask = AddedToken("<mask>", lstrip=True, normalized=False)
    theirs.add_special_tokens(["</s>", "<pad>", "<s>", mask])
    theirs.post_processor = processors.RobertaProcessing(  # type: ignore[assignment]
        ("</s>", 1), ("<s>", 0), trim_offsets=trim is None, add_prefix_space=bool(prefix)
    )
    theirs.enable_truncation(12)
    ours = Tokenizer(*load_tokenizer(tmp_path))
    for texts in (*((text,) for text in TEXTS), TEXTS[:2]):
        found, wanted = ours.encode(*texts), theirs.encode(*texts)
        assert found.ids.tolist() == wanted.ids
        assert list(map(tuple, found.offsets.tolist())) == wanted.offsets


def test_a_vocabulary_without_its_merges_is_refused(tmp_path: Path) -> None:
    two_files(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"merges\.txt: is missing"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "from_file"), [("RobertaTokenizer", False), ("PreTrainedTokenizer", True)]
)
def test_options_of_roberta_are_those_of_its_class(
    tmp_path: Path, name: str, from_file: bool
) -> None:
    raw = trained_json()
    raw["pre_tokenizer"]["add_prefix_space"] = raw["post_processor"]["add_prefix_space"] = True
    known = {"tokenizer_class": name}
    spec = load_tokenizer(write(tmp_path, {**known, **NAMED}, tokenizer=raw)).spec
    assert isinstance(spec.settings, ByteBpeSettings)
    assert spec.settings.add_prefix_space == spec.settings.trim_prefix_space == from_file


def test_options_of_xlm_roberta_are_those_of_its_class(tmp_path: Path) -> None:
    raw = document("first")
    raw["post_processor"] = {"type": "BertProcessing", "sep": ["a", 4], "cls": ["b", 5]}
    settings = {"tokenizer_class": "XLMRobertaTokenizerFast", "sep_token": "ab"}
    settings |= {**NAMED, "cls_token": "c"}
    spec = load_tokenizer(write(tmp_path, settings, tokenizer=raw)).spec
    own = spec.settings
    assert isinstance(own, UnigramSettings)
    assert (own.prepend, own.split_spaces, own.unknown) == ("always", True, 3)
    assert [step.kind for step in own.steps] == ["charsmap"]
    assert [part.what for part in spec.around.pair] == ["c", "$A", "ab", "ab", "$B", "ab"]


@pytest.mark.parametrize(("more", "special"), [(None, True), (["ab"], False)])
def test_camemberts_class_finds_its_unknown_piece_and_has_special_tokens_of_its_own(
    tmp_path: Path, more: list[str] | None, special: bool
) -> None:
    raw = document()
    raw["model"]["vocab"].append(["</s>NOTUSED", 0.0])
    raw["post_processor"] = {"type": "BertProcessing", "sep": ["a", 4], "cls": ["b", 5]}
    settings = {"tokenizer_class": "CamembertTokenizer", "unk_token": "b", "sep_token": "ab"}
    settings |= {**NAMED, "cls_token": "c"}
    settings |= {} if more is None else {"additional_special_tokens": more}
    spec = load_tokenizer(write(tmp_path, settings, tokenizer=raw)).spec
    assert isinstance(spec.settings, UnigramSettings)
    assert raw["model"]["vocab"][spec.settings.unknown][0] == "b"
    assert ("</s>NOTUSED" in spec.special_tokens) == special
