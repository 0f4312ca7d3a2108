"""Small checkpoints as people have them: random weights by transformers, and files laid over them.

In: a ``Case``, a directory. Out: the directory's files. Tokenizers are made as the hub has them,
of a few hundred words of the calibration text that comes with the builder. Needs torch and
transformers.
"""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from benchmarks.checkpoint_config_cases import Case
from benchmarks.families import four_bits
from shard_tools.packing.calibration_text import calibration_texts
from tests.support.charsmaps import charsmap

_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_MPNET = ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")
_CAMEMBERT = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>")
_MASK = "<mask>"
_PIECES = 300
_MAP = {"\t": " ", "\n": " ", "\u3000": " ", "ﬁ": "fi", "™": "TM", "\uff41": "a", "e\u0301": "é"}
_SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 48,
}
_NAMES = {
    "DistilBert": {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    }
}
_OWN = {"Electra": {"embedding_size": 64}}
_SUPPORTED = ("Bert", "Camembert", "DistilBert", "Electra", "MPNet", "Roberta", "XLMRoberta")


def write_checkpoint(case: Case, folder: Path, seed: int) -> None:
    """Make a case's checkpoint."""
    torch.manual_seed(seed)
    words = write_tokenizer(case, folder)
    if case.family in _SUPPORTED:
        names = _NAMES.get(case.family, {})
        sizes = {names.get(key, key): value for key, value in _SIZES.items()}
        values = {"vocab_size": words, **sizes, **_OWN.get(case.family, {}), **case.config}
    else:
        values = {"vocab_size": words, **case.config}
    config = getattr(transformers, f"{case.family}Config")(**values)
    model = getattr(transformers, f"{case.family}{case.head}")(config)
    if case.family in _SUPPORTED:
        scale_up(model)
    model.save_pretrained(folder)
    for number, (inputs, outputs) in enumerate(case.dense, 2):
        place = folder / f"{number}_Dense"
        place.mkdir()
        weights = {"linear.weight": torch.randn(outputs, inputs) / 8}
        save_file(weights | {"linear.bias": torch.randn(outputs) / 8}, place / "model.safetensors")
    _lay_over(case, folder)


def scale_up(model: Any) -> None:
    """Random weights large enough that every part counts, and such as packs can keep."""
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if "LayerNorm" in key or "layer_norm" in key:
                tensor.add_(torch.randn_like(tensor) * 0.1)
            else:
                tensor.copy_(torch.randn_like(tensor) * (1.0 if "_bias" in key else 0.12))
            if "position_embeddings" in key:
                tensor.copy_(tensor.half())
            if "word_embeddings" in key:
                tensor.copy_(torch.from_numpy(four_bits(tensor.numpy())))


def _lay_over(case: Case, folder: Path) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if case.keeps:
        path.write_text(json.dumps({key: config[key] for key in case.keeps if key in config}))
    for file, values in case.files.items():
        path = folder / file
        if values is None:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(exist_ok=True)
        if isinstance(values, list):
            path.write_text(json.dumps(values), encoding="utf-8")
            continue
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        merged = {**found, **values}
        kept = {key: value for key, value in merged.items() if value is not None}
        path.write_text(json.dumps(kept), encoding="utf-8")


def write_tokenizer(case: Case, folder: Path) -> int:
    """A case's tokenizer files; how many words it has."""
    if case.words in ("bpe", "unigram"):
        words = _CAMEMBERT if case.family == "Camembert" else _ROBERTA
        document = _byte_level() if case.words == "bpe" else _unigram(words)
        made = tokenizers.Tokenizer.from_str(document)
    else:
        made, words = _wordpiece(case), _BERT if case.words == "wordpiece" else _MPNET
    size = made.get_vocab_size()
    if case.layout == "tokenizer.json":
        made.save(str(folder / "tokenizer.json"))
    else:
        # vocab.txt; or vocab.json and merges.txt, without the tokens that were added.
        made.model.save(str(folder))
    if case.words == "mpnet":
        named = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "[UNK]", "mask": _MASK}
    elif words is _BERT:
        return size
    else:
        named = {"cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
    named |= {"bos": "<s>", "eos": "</s>", "mask": _MASK}
    settings = {f"{kind}_token": word for kind, word in named.items()}
    (folder / "special_tokens_map.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return size


def _texts() -> tuple[str, ...]:
    return tuple(str(text) for text in calibration_texts(None))


@functools.cache
def _vocabulary(lower: bool) -> tuple[str, ...]:
    """Words and letters of English, some of other languages, and pieces inside of words."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lower)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=_PIECES, show_progress=False)
    made.train_from_iterator(_texts(), trainer)
    own = sorted(made.get_vocab(), key=made.get_vocab().__getitem__)
    return (*own, *"äöüéß中文ÄÉ", "##é", "##ü", "##ß")


def _wordpiece(case: Case) -> tokenizers.Tokenizer:
    specials = _BERT if case.words == "wordpiece" else _MPNET
    cased = case.normalizer.get("lowercase") is False
    cased = cased or case.files.get("tokenizer_config.json", {}).get("do_lower_case") is False
    own = [word for word in _vocabulary(not cased) if word not in specials]
    words = dict.fromkeys([*specials, *own])
    numbers = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(**{"lowercase": True, **case.normalizer})
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if specials is _MPNET:
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    else:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    marks = [tokenizers.AddedToken(word, special=True, lstrip=word == _MASK) for word in specials]
    made.add_special_tokens(marks)
    return made


@functools.cache
def _byte_level() -> str:
    """As RoBERTa has it."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2 * _PIECES,
        special_tokens=[*_ROBERTA],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(_texts(), trainer)
    document = json.loads(made.to_str())
    vocabulary = document["model"]["vocab"]
    vocabulary[_MASK] = len(vocabulary)
    made = tokenizers.Tokenizer.from_str(json.dumps(document))
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    made.add_special_tokens([tokenizers.AddedToken(_MASK, special=True, lstrip=True)])
    return str(made.to_str())


@functools.cache
def _unigram(specials: tuple[str, ...]) -> str:
    """As XLM-RoBERTa and CamemBERT have it, with a small map of characters."""
    made = tokenizers.Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=_PIECES, show_progress=False, unk_token="<unk>", special_tokens=[*specials]
    )
    made.train_from_iterator(_texts(), trainer)
    document = json.loads(made.to_str())
    own = document["model"]["vocab"]
    document["model"]["vocab"] = [*own, *([piece, -9.5] for piece in "éüß中文"), [_MASK, 0.0]]
    document["model"]["unk_id"] = specials.index("<unk>")
    numbers = base64.b64encode(charsmap(_MAP)).decode("ascii")
    document["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": numbers}
    made = tokenizers.Tokenizer.from_str(json.dumps(document))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(word, specials.index(word)) for word in ("<s>", "</s>")],
    )
    marks = [tokenizers.AddedToken(word, special=True) for word in specials]
    made.add_special_tokens([*marks, tokenizers.AddedToken(_MASK, special=True, lstrip=True)])
    return str(made.to_str())
