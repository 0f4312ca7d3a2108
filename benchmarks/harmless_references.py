"""Tiny random checkpoints of every family, and what transformers answers with them.

In: a directory. Out: files as transformers writes them, and functions that load a directory anew
and answer with it. For ``benchmarks.harmless_settings``; needs torch and transformers, and
sentence-transformers for the files of its own.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

SIZES = {
    "vocab_size": 160,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
CLASSES = {
    "bert": "Bert",
    "distilbert": "DistilBert",
    "camembert": "Camembert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "electra": "Electra",
    "mpnet": "MPNet",
}
TEXTS = [
    "The dog runs under the table, twice.",
    "",
    "  Ünïcode \u00c5 and \u4e2d\u6587; caf\u00e9\u0301 [MASK] <mask> [SEP] </s> ##ing",
    "don't can 't i 'm . ? ! a" + " long" * 30,
    "\tTabs\nand\u00a0spaces\u200b \ufffd",
]
_IDS = [[5, 9, 17, 33, 41, 8], [6, 12, 0, 0, 0, 0]]
_MASK = [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]


def write_model(family: str, folder: Path) -> None:
    """A classifier of ``family`` with three labels and random weights."""
    torch.manual_seed(0)
    own = {"distilbert": {"hidden_dim": 32}, "electra": {"embedding_size": 8}}.get(family, {})
    config = getattr(transformers, f"{CLASSES[family]}Config")(**SIZES, **own, num_labels=3)
    kind = getattr(transformers, f"{CLASSES[family]}ForSequenceClassification")
    kind(config).eval().save_pretrained(folder)


def classified(folder: Path) -> np.ndarray:
    """Logits of fixed ids, and the hidden states of the last layer, as one vector."""
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    ids, mask = torch.tensor(_IDS), torch.tensor(_MASK)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask)[0]
        encoder = getattr(model, model.base_model_prefix)
        hidden = encoder(input_ids=ids, attention_mask=mask)[0]
    parts = [logits.float().numpy(), (hidden.float() * mask[..., None]).numpy()]
    return np.concatenate([part.ravel() for part in parts])


def write_tokenizer(family: str, folder: Path, *, full: bool) -> None:
    """The tokenizer of ``family``; ``full``: as ``tokenizer.json``, else BERT's ``vocab.txt``."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [*string.ascii_lowercase, *string.punctuation, "the", "dog", "run", "table"]
    pieces = ["##" + letter for letter in [*string.ascii_lowercase, "ing", "s"]]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *pieces]
    if not full:
        (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 24}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    elif family in ("roberta", "xlm-roberta"):
        _write_sentence_pieces(family, folder)
    else:
        made = transformers.BertTokenizerFast(vocab={word: n for n, word in enumerate(words)})
        made.model_max_length = 24
        made.save_pretrained(folder)


def _write_sentence_pieces(family: str, folder: Path) -> None:
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    if family == "roberta":
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = {word: n for n, word in enumerate([*specials, *alphabet, "th", "the", "<mask>"])}
        made = tokenizers.Tokenizer(models.BPE(words, [("t", "h"), ("th", "e")]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    else:
        pieces = ["\u2581", *string.ascii_lowercase, "\u2581the", "\u2581dog", "ing", "<mask>"]
        scored = [(word, 0.0) for word in specials]
        scored += [(word, -1.0 - n / 10) for n, word in enumerate(pieces)]
        made = tokenizers.Tokenizer(models.Unigram(scored, unk_id=3))
        made.normalizer = normalizers.NFKC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> $B </s>",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        )
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "cls": "<s>"}
    names |= {"pad": "<pad>", "mask": "<mask>"}
    kind = {"roberta": "Roberta", "xlm-roberta": "XLMRoberta"}[family]
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=24,
        **{f"{name}_token": word for name, word in names.items()},
    ).save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"tokenizer_class": f"{kind}Tokenizer"}))


def tokenized(folder: Path) -> list[Any]:
    """Ids and types of texts and pairs, cut to the longest that the tokenizer allows."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found: list[Any] = []
    for text in TEXTS:
        for pair in (None, "the other"):
            one = tokenizer(text, pair, truncation=True, return_token_type_ids=True)
            found.append([one["input_ids"], one["token_type_ids"]])
    return found


def write_sentence_model(folder: Path) -> None:
    """A model of sentence-transformers: encoder and all modules."""
    import sentence_transformers as st
    from sentence_transformers.sentence_transformer import modules

    write_model("bert", folder / "encoder")
    write_tokenizer("bert", folder / "encoder", full=True)
    encoder = modules.Transformer(str(folder / "encoder"))
    parts = [encoder, modules.Pooling(SIZES["hidden_size"]), modules.Dense(SIZES["hidden_size"], 8)]
    parts += [modules.Normalize(), modules.Dropout(0.1)]
    st.SentenceTransformer(modules=parts, device="cpu").save(str(folder))


def embedded(folder: Path) -> np.ndarray:
    """Vectors of texts, as a call without options gives them."""
    import sentence_transformers as st

    return st.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)


Answer = Callable[[Path], Any]
