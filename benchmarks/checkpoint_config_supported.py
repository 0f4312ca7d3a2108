"""The configurations that are to be built: BERT's, and those of the families beside it.

In: nothing. Out: ``SUPPORTED``, as data. Knows no library.
"""

from __future__ import annotations

from benchmarks.checkpoint_config_bert import BERT
from benchmarks.checkpoint_config_cases import (
    CASED,
    CASED_JSON,
    E5,
    IOB,
    LOWER,
    MASKED,
    MULTI,
    NLI,
    ONE,
    ROBERTA,
    TANH,
    TEXTS,
    THREE,
    TOKENS,
    XLM,
    Case,
    dense,
    labels,
    sentence,
    tokenizer,
)

_DISTILBERT = (
    Case("distilbert/distilbert-base-uncased", "DistilBert", MASKED, {"tie_weights_": True}),
    Case(
        "distilbert/distilbert-base-multilingual-cased",
        "DistilBert",
        MASKED,
        normalizer=CASED_JSON,
        files=CASED,
    ),
    Case(
        "distilbert/distilbert-base-uncased-finetuned-sst-2-english",
        "DistilBert",
        TEXTS,
        {"finetuning_task": "sst-2", **labels("NEGATIVE", "POSITIVE")},
        files=LOWER,
    ),
    Case("elastic/distilbert-base-uncased-finetuned-conll03-english", "DistilBert", TOKENS, IOB),
    Case(
        "sentence-transformers/msmarco-distilbert-base-tas-b",
        "DistilBert",
        files=LOWER | sentence("cls_token", then=()),
    ),
    Case(
        "sentence-transformers/distiluse-base-multilingual-cased-v2",
        "DistilBert",
        files=CASED | sentence("mean_tokens", then=("Dense",)) | dense(TANH, 32),
        dense=((64, 32),),
    ),
)

_ROBERTA = (
    Case("FacebookAI/roberta-base", "Roberta", MASKED, ROBERTA, "bpe", "plain"),
    Case("distilbert/distilroberta-base", "Roberta", MASKED, ROBERTA, "bpe"),
    Case("microsoft/codebert-base", "Roberta", "Model", ROBERTA, "bpe", "plain"),
    Case("princeton-nlp/sup-simcse-roberta-base", "Roberta", "Model", ROBERTA, "bpe"),
    Case(
        "cardiffnlp/twitter-roberta-base-sentiment-latest",
        "Roberta",
        TEXTS,
        ROBERTA | {"gradient_checkpointing": False} | THREE,
        "bpe",
    ),
    Case(
        "SamLowe/roberta-base-go_emotions",
        "Roberta",
        TEXTS,
        ROBERTA | MULTI | labels("joy", "fear", "love"),
        "bpe",
    ),
    Case("FacebookAI/roberta-large-mnli", "Roberta", TEXTS, ROBERTA | NLI, "bpe", pairs=True),
    Case("cross-encoder/nli-MiniLM2-L6-H768", "Roberta", TEXTS, ROBERTA | NLI, "bpe", pairs=True),
    Case("cross-encoder/stsb-roberta-base", "Roberta", TEXTS, ROBERTA | ONE, "bpe", pairs=True),
    Case(
        "obi/deid_roberta_i2b2",
        "Roberta",
        TOKENS,
        ROBERTA | IOB,
        "bpe",
        files=tokenizer(tokenizer_class="RobertaTokenizer", add_prefix_space=True),
    ),
    Case(
        "sentence-transformers/all-distilroberta-v1",
        "Roberta",
        "Model",
        ROBERTA,
        "bpe",
        files=sentence("mean_tokens"),
    ),
)

_XLM_ROBERTA = (
    Case("FacebookAI/xlm-roberta-base", "XLMRoberta", MASKED, ROBERTA, "unigram"),
    Case(
        "cardiffnlp/twitter-xlm-roberta-base-sentiment",
        "XLMRoberta",
        TEXTS,
        ROBERTA | THREE,
        "unigram",
        files=tokenizer(**XLM),
    ),
    Case("Davlan/xlm-roberta-base-ner-hrl", "XLMRoberta", TOKENS, ROBERTA | IOB, "unigram"),
    Case(
        "intfloat/multilingual-e5-base",
        "XLMRoberta",
        "Model",
        ROBERTA,
        "unigram",
        files=tokenizer(**XLM) | sentence("mean_tokens", own={"prompts": E5}),
    ),
    Case("BAAI/bge-m3", "XLMRoberta", "Model", ROBERTA, "unigram", files=sentence("cls_token")),
    Case("BAAI/bge-reranker-base", "XLMRoberta", TEXTS, ROBERTA | ONE, "unigram", pairs=True),
    Case("almanach/camembert-base", "Camembert", MASKED, ROBERTA, "unigram"),
    Case(
        "dangvantuan/sentence-camembert-base",
        "Camembert",
        "Model",
        ROBERTA,
        "unigram",
        files=tokenizer(tokenizer_class="CamembertTokenizer") | sentence("mean_tokens", then=()),
    ),
)

_MPNET = (
    Case("microsoft/mpnet-base", "MPNet", MASKED, {"layer_norm_eps": 1e-5}, "mpnet", "plain"),
    Case(
        "sentence-transformers/all-mpnet-base-v2",
        "MPNet",
        "Model",
        {"layer_norm_eps": 1e-5, "relative_attention_num_buckets": 32},
        "mpnet",
        files=tokenizer(tokenizer_class="MPNetTokenizer", do_lower_case=True)
        | sentence("mean_tokens"),
    ),
    Case(
        "sentence-transformers/multi-qa-mpnet-base-dot-v1",
        "MPNet",
        words="mpnet",
        files=sentence("cls_token", then=()),
    ),
    Case("a classifier of mpnet", "MPNet", TEXTS, THREE, "mpnet", pairs=True),
)

_ELECTRA = (
    Case("google/electra-base-discriminator", "Electra", "ForPreTraining", layout="plain"),
    Case("google/electra-base-generator", "Electra", MASKED, files=LOWER),
    Case("cross-encoder/ms-marco-electra-base", "Electra", TEXTS, ONE, pairs=True),
    Case("a tagger of electra", "Electra", TOKENS, IOB, files=LOWER),
    Case(
        "sentence vectors of electra",
        "Electra",
        config={"summary_type": "first", "summary_use_proj": True},
        files=LOWER | sentence("mean_tokens"),
    ),
)

SUPPORTED = (
    *(*BERT, *_DISTILBERT),
    *(*_ROBERTA, *_XLM_ROBERTA, *_MPNET, *_ELECTRA),
)
