"""Configurations of BERT that are to be built.

In: nothing. Out: ``BERT``, as data. Knows no library.
"""

from __future__ import annotations

from benchmarks.checkpoint_config_cases import (
    CASED,
    CASED_JSON,
    E5,
    IDENTITY,
    IOB,
    LOWER,
    MASKED,
    MULTI,
    OLD_CONFIG,
    ONE,
    POOLER,
    SAID,
    SIGMOID,
    TANH,
    TEXTS,
    THREE,
    TOKENS,
    XLM,
    Case,
    dense,
    labels,
    newer,
    sentence,
    tokenizer,
)

_BERT = (
    Case("google-bert/bert-base-uncased", "Bert", MASKED, files=LOWER),
    Case("google-bert/bert-base-cased", "Bert", MASKED, files=CASED, normalizer=CASED_JSON),
    Case(
        "google-bert/bert-base-multilingual-cased",
        "Bert",
        MASKED,
        {"output_past": True, **POOLER},
        files=CASED,
        normalizer=CASED_JSON,
    ),
    Case("google-bert/bert-base-multilingual-uncased", "Bert", MASKED, POOLER, files=LOWER),
    Case("google-bert/bert-base-chinese", "Bert", MASKED, POOLER, files=CASED),
    Case("google-bert/bert-base-german-cased", "Bert", "ForPreTraining", layout="plain"),
    Case("prajjwal1/bert-tiny", "Bert", layout="plain", keeps=OLD_CONFIG),
    Case(
        "google/bert_uncased_L-2_H-128_A-2", "Bert", "ForPreTraining", files=LOWER, keeps=OLD_CONFIG
    ),
    Case(
        "huawei-noah/TinyBERT_General_4L_312D",
        "Bert",
        "ForPreTraining",
        layout="plain",
        files={"config.json": {"cell": {}, "emb_size": 312, "structure": [], "pre_trained": ""}},
    ),
    Case("hfl/chinese-bert-wwm-ext", "Bert", MASKED, POOLER, layout="plain", files=CASED),
    Case("allenai/scibert_scivocab_uncased", "Bert", layout="plain", keeps=OLD_CONFIG),
    Case("emilyalsentzer/Bio_ClinicalBERT", "Bert", MASKED, layout="plain"),
    Case(
        "deepset/gbert-base",
        "Bert",
        MASKED,
        layout="plain",
        files=tokenizer(do_lower_case=False, strip_accents=False, max_len=512),
    ),
    Case(
        "dbmdz/bert-base-turkish-uncased",
        "Bert",
        MASKED,
        layout="plain",
        files=tokenizer(do_lower_case=True, strip_accents=False, max_len=512),
    ),
    Case("SpanBERT/spanbert-base-cased", "Bert", layout="plain", files=CASED),
    # tokenizer.json lowers, tokenizer_config.json does not: the latter counts.
    Case("lowered by one file alone", "Bert", files=CASED),
    Case("no pooling is on", "Bert", files=LOWER | sentence(then=())),
    Case(
        "microsoft/MiniLM-L12-H384-uncased",
        "Bert",
        layout="plain",
        config={"hidden_act": "gelu", "layer_norm_eps": 1e-12},
    ),
    Case("relu in bert", "Bert", config={"hidden_act": "relu"}, files=LOWER),
    Case("gelu_new in bert", "Bert", config={"hidden_act": "gelu_new"}, files=LOWER),
    Case("silu in bert", "Bert", config={"hidden_act": "silu"}, files=LOWER),
)

_BERT_TEXTS = (
    Case("ProsusAI/finbert", "Bert", TEXTS, THREE, layout="plain", files=LOWER),
    Case(
        "nlptown/bert-base-multilingual-uncased-sentiment",
        "Bert",
        TEXTS,
        {"finetuning_task": "sentiment-analysis", **labels("1 star", "2 stars", "3 stars")},
        files=tokenizer(do_lower_case=True, truncation_side="left", model_max_length=20),
    ),
    Case("textattack/bert-base-uncased-SST-2", "Bert", TEXTS, {"finetuning_task": "glue:sst2"}),
    Case("unitary/toxic-bert", "Bert", TEXTS, MULTI | labels("toxic", "threat", "insult")),
    Case(
        "integers as labels",
        "Bert",
        TEXTS,
        labels("0", "1"),
        files={"config.json": {"id2label": {"0": 0, "1": 1}, "label2id": {"0": 0, "1": 1}}},
    ),
    Case("dslim/bert-base-NER", "Bert", TOKENS, {"_num_labels": 5, **IOB}, files=CASED),
    Case(
        "dbmdz/bert-large-cased-finetuned-conll03-english",
        "Bert",
        TOKENS,
        IOB,
        layout="plain",
        files=CASED,
    ),
    Case(
        "cross-encoder/ms-marco-MiniLM-L-6-v2",
        "Bert",
        TEXTS,
        ONE,
        files={"config.json": {"sbert_ce_default_activation_function": IDENTITY}},
        pairs=True,
    ),
    Case(
        "cross-encoder/ms-marco-TinyBERT-L-2-v2",
        "Bert",
        TEXTS,
        ONE,
        files={
            "config.json": {
                "sentence_transformers": {"activation_fn": IDENTITY, "version": "4.0.1"}
            }
        },
        pairs=True,
    ),
    Case(
        "cross-encoder/stsb-TinyBERT-L-4",
        "Bert",
        TEXTS,
        ONE,
        files={
            "config.json": {"sentence_transformers": {"activation_fn": SIGMOID, "version": "4.1.0"}}
        },
        pairs=True,
    ),
    Case("cross-encoder/qnli-electra-base", "Electra", TEXTS, ONE, files=LOWER, pairs=True),
    Case("problem_type regression", "Bert", TEXTS, ONE | {"problem_type": "regression"}),
)

_BERT_VECTORS = (
    Case("sentence-transformers/all-MiniLM-L6-v2", "Bert", files=LOWER | sentence("mean_tokens")),
    Case(
        "sentence-transformers/paraphrase-MiniLM-L3-v2",
        "Bert",
        files=LOWER | sentence("mean_tokens", then=()),
    ),
    Case(
        "sentence-transformers/bert-base-nli-cls-token",
        "Bert",
        files=LOWER | sentence("cls_token", then=()),
    ),
    Case(
        "sentence-transformers/bert-base-nli-max-tokens",
        "Bert",
        files=LOWER | sentence("max_tokens", then=()),
    ),
    Case(
        "several poolings, old names",
        "Bert",
        files=LOWER
        | sentence("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", then=()),
    ),
    Case(
        "several poolings, new names",
        "Bert",
        files=LOWER | newer(["weightedmean", "lasttoken", "mean"]),
    ),
    Case(
        "sentence-transformers/LaBSE",
        "Bert",
        files=CASED | sentence("cls_token", then=("Dense", "Normalize")) | dense(TANH, 64),
        dense=((64, 64),),
    ),
    Case("BAAI/bge-small-en-v1.5", "Bert", files=LOWER | sentence("cls_token")),
    Case(
        "BAAI/bge-base-zh-v1.5",
        "Bert",
        files=tokenizer(do_lower_case=True, do_basic_tokenize=True, never_split=None)
        | sentence("cls_token", lower=True),
    ),
    Case("intfloat/e5-small-v2", "Bert", files=LOWER | sentence("mean_tokens")),
    Case(
        "mixedbread-ai/mxbai-embed-large-v1",
        "Bert",
        files=LOWER
        | sentence(
            "cls_token",
            then=(),
            own={"prompts": {"query": SAID, "passage": ""}, "default_prompt_name": None},
        ),
    ),
    Case(
        "Snowflake/snowflake-arctic-embed-xs",
        "Bert",
        files=LOWER | sentence("cls_token", own={"prompts": {"query": SAID}}),
    ),
    Case(
        "a default prompt",
        "Bert",
        files=LOWER
        | sentence("mean_tokens", own={"prompts": E5, "default_prompt_name": "passage"}),
    ),
    Case("thenlper/gte-small", "Bert", files=LOWER | newer("mean")),
    Case(
        "lowered in front of a cased tokenizer",
        "Bert",
        normalizer=CASED_JSON,
        files=CASED | sentence("mean_tokens", lower=True),
    ),
    Case(
        "intfloat/multilingual-e5-small",
        "Bert",
        words="unigram",
        files=tokenizer(**XLM) | sentence("mean_tokens"),
    ),
    Case(
        "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
        "Bert",
        words="unigram",
        files=tokenizer(tokenizer_class="PreTrainedTokenizerFast", model_max_length=32)
        | sentence("mean_tokens", then=()),
    ),
)

BERT = (*_BERT, *_BERT_TEXTS, *_BERT_VECTORS)
