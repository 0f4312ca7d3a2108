"""What a checkpoint's configuration is, and what several of them share, as data.

In: nothing. Out: ``Case``, for ``checkpoint_config_supported`` and ``checkpoint_config_refused``.
Knows no library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ST = "sentence_transformers.models."
_TORCH = "torch.nn.modules."
SIGMOID, IDENTITY = f"{_TORCH}activation.Sigmoid", f"{_TORCH}linear.Identity"
TANH = f"{_TORCH}activation.Tanh"


@dataclass(frozen=True, slots=True)
class Case:
    """What a public checkpoint's files say; sizes and words are small ones."""

    name: str
    """The checkpoint on the hub."""
    family: str
    """How the names of its classes begin in transformers."""
    head: str = "Model"
    """How the name of its class ends."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What its configuration class is given besides the small sizes."""
    words: str = "wordpiece"
    """Its tokenizer: ``wordpiece``, ``mpnet``, ``bpe`` or ``unigram``."""
    layout: str = "tokenizer.json"
    """Where the tokenizer is: ``tokenizer.json``, or ``plain`` for the files of slow ones."""
    normalizer: Mapping[str, Any] = field(default_factory=dict)
    """What a ``tokenizer.json`` says of BERT's normalizer besides the defaults."""
    files: Mapping[str, Mapping[str, Any] | list[Any] | None] = field(default_factory=dict)
    """JSON files; members go over those that are there, null takes one away. None: no file."""
    keeps: tuple[str, ...] = ()
    """All members that its ``config.json`` has; none for what transformers writes."""
    dense: tuple[tuple[int, int], ...] = ()
    """Inputs and outputs of Dense modules, the first being module 2."""
    pairs: bool = False
    refused: str = ""
    """What the error names; nothing for one that is to be built."""


def labels(*names: str) -> dict[str, Any]:
    """Label names as a configuration class takes them."""
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
    }


def tokenizer(**settings: Any) -> dict[str, Any]:
    """``tokenizer_config.json`` alone."""
    return {"tokenizer_config.json": settings}


def sentence(
    *poolings: str,
    then: tuple[str, ...] = ("Normalize",),
    longest: int = 32,
    lower: bool = False,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """sentence-transformers' files as releases before 5.4 write them."""
    kinds = ("Transformer", "Pooling", *then)
    flags = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    flags += ("weightedmean_tokens", "lasttoken")
    folders = ("", *(f"{number}_{kind}" for number, kind in enumerate(kinds[1:], 1)))
    modules = [
        {"idx": number, "name": str(number), "path": folder, "type": ST + kind}
        for number, (kind, folder) in enumerate(zip(kinds, folders, strict=True))
    ]
    modes = {f"pooling_mode_{flag}": flag in poolings for flag in flags}
    return {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": lower},
        "1_Pooling/config.json": {"word_embedding_dimension": 64, **modes},
        "config_sentence_transformers.json": {
            "__version__": {"sentence_transformers": "2.0.0", "transformers": "4.6.1"},
            **(own or {}),
        },
    }


def newer(pooling: str | list[str], own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """sentence-transformers' files as 5.4 and later write them."""
    package = "sentence_transformers."
    kinds = (
        ("", "base.modules.transformer.Transformer"),
        ("1_Pooling", "sentence_transformer.modules.pooling.Pooling"),
        ("2_Normalize", "base.modules.normalize.Normalize"),
    )
    return {
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": package + kind}
            for number, (path, kind) in enumerate(kinds)
        ],
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "modality_config": {
                "text": {"method": "forward", "method_output_name": "last_hidden_state"}
            },
            "module_output_name": "token_embeddings",
        },
        "1_Pooling/config.json": {"embedding_dimension": 64, "pooling_mode": pooling},
        "config_sentence_transformers.json": {"model_type": "SentenceTransformer", **(own or {})},
    }


def dense(activation: str, outputs: int) -> dict[str, Any]:
    """The configuration of a Dense module."""
    sizes = {"in_features": 64, "out_features": outputs, "bias": True}
    return {"2_Dense/config.json": {**sizes, "activation_function": activation}}


OLD_CONFIG = (
    *("attention_probs_dropout_prob", "hidden_act", "hidden_dropout_prob", "hidden_size"),
    *("initializer_range", "intermediate_size", "max_position_embeddings", "num_attention_heads"),
    *("num_hidden_layers", "type_vocab_size", "vocab_size"),
)
"""Of the first releases."""
LOWER, CASED = tokenizer(do_lower_case=True), tokenizer(do_lower_case=False)
CASED_JSON = {"lowercase": False}
MASKED, TEXTS, TOKENS = "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"
ROBERTA = {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
XLM = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}
E5 = {"query": "query: ", "passage": "passage: "}
THREE = labels("negative", "neutral", "positive")
IOB = labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NLI = labels("contradiction", "entailment", "neutral")
MULTI = {"problem_type": "multi_label_classification"}
ONE = {"num_labels": 1}
SAID = "Represent this sentence for searching relevant passages: "
POOLER = {
    "directionality": "bidi",
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
}
