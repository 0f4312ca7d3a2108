"""The configurations that are to be refused by name, as data.

In: nothing. Out: ``REFUSED``. Knows no library.
"""

from __future__ import annotations

from benchmarks.checkpoint_config_cases import (
    CASED,
    LOWER,
    MASKED,
    MULTI,
    ROBERTA,
    ST,
    TANH,
    TEXTS,
    Case,
    dense,
    labels,
    newer,
    sentence,
    tokenizer,
)

_HEADS = {"num_attention_heads": 4, "num_hidden_layers": 2, "hidden_size": 64}
_SMALL = {**_HEADS, "intermediate_size": 128, "max_position_embeddings": 48}
_T5 = {"d_model": 32, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_BART = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}


def _other(name: str, family: str, kind: str, head: str = "Model", **config: object) -> Case:
    """A checkpoint of another family."""
    return Case(name, family, head, config or _SMALL, refused=f"model_type '{kind}'")


def _pooling(name: str, said: str, **members: object) -> Case:
    files = LOWER | sentence("mean_tokens")
    files["1_Pooling/config.json"] = {**files["1_Pooling/config.json"], **members}
    return Case(name, "Bert", files=files, refused=said)


def _config(name: str, said: str, head: str = "Model", **members: object) -> Case:
    return Case(name, "Bert", head, files={**LOWER, "config.json": members}, refused=said)


_FAMILIES = (
    _other("microsoft/deberta-v3-base", "DebertaV2", "deberta-v2"),
    _other("microsoft/deberta-base", "Deberta", "deberta"),
    _other("albert/albert-base-v2", "Albert", "albert", **_SMALL, embedding_size=16),
    _other("google-t5/t5-small", "T5", "t5", **_T5),
    _other("openai-community/gpt2", "GPT2", "gpt2", **_GPT2),
    _other("answerdotai/ModernBERT-base", "ModernBert", "modernbert", **_SMALL, pad_token_id=0),
    _other("xlnet/xlnet-base-cased", "XLNet", "xlnet", d_model=32, n_layer=2, n_head=4, d_inner=64),
    _other("facebook/bart-base", "Bart", "bart", **_BART),
    _other("google/mobilebert-uncased", "MobileBert", "mobilebert", **_HEADS),
    _other("YituTech/conv-bert-base", "ConvBert", "convbert"),
    _other("FacebookAI/xlm-roberta-xl", "XLMRobertaXL", "xlm-roberta-xl"),
    _other(
        "allenai/longformer-base-4096",
        "Longformer",
        "longformer",
        **_SMALL,
        attention_window=[8, 8],
    ),
    _other("google/bigbird-roberta-base", "BigBird", "big_bird"),
    _other(
        "squeezebert/squeezebert-uncased", "SqueezeBert", "squeezebert", **_HEADS, embedding_size=64
    ),
    _other("nghuyong/ernie-3.0-base-zh", "Ernie", "ernie"),
    _config(
        "nomic-ai/nomic-embed-text-v1",
        "model_type 'nomic_bert'",
        model_type="nomic_bert",
        auto_map={"A": "b"},
    ),
    _config(
        "jinaai/jina-embeddings-v2-small-en",
        "alibi",
        position_embedding_type="alibi",
        auto_map={"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"},
    ),
)

_CONFIGS = (
    _config(
        "zhiheng-huang/bert-base-uncased-embedding-relative-key",
        "relative_key",
        MASKED,
        position_embedding_type="relative_key",
    ),
    _config("a decoder of bert", "is_decoder", "LMHeadModel", is_decoder=True),
    _config("an encoder with cross-attention", "add_cross_attention", add_cross_attention=True),
    _config("weights of bitsandbytes", "quantization_config", quantization_config={"bits": 4}),
    _config("heads that were pruned", "pruned_heads", pruned_heads={"0": [1]}),
    _config("an activation of another kind", "hidden_act 'mish'", hidden_act="mish"),
    Case(
        "google-bert/bert-large-uncased-whole-word-masking-finetuned-squad",
        "Bert",
        "ForQuestionAnswering",
        refused="BertForQuestionAnswering",
    ),
    Case(
        "distilbert/distilbert-base-cased-distilled-squad",
        "DistilBert",
        "ForQuestionAnswering",
        refused="DistilBertForQuestionAnswering",
    ),
    Case("a choice of several", "Bert", "ForMultipleChoice", refused="BertForMultipleChoice"),
    Case(
        "next sentences",
        "Bert",
        "ForNextSentencePrediction",
        refused="BertForNextSentencePrediction",
    ),
    Case(
        "labels that contradict",
        "Bert",
        TEXTS,
        labels("a", "b"),
        files={"config.json": {"label2id": {"a": 1, "b": 0}}},
        refused="id2label and label2id",
    ),
    Case(
        "a problem of no kind",
        "Bert",
        TEXTS,
        files={"config.json": {"problem_type": "ranking"}},
        refused="problem_type",
    ),
    Case(
        "several labels without a sigmoid",
        "Bert",
        TEXTS,
        MULTI,
        files={"config.json": {"sbert_ce_default_activation_function": "torch.nn.Identity"}},
        refused="torch.nn.Identity",
    ),
    Case(
        "padding that texts end with",
        "Roberta",
        "Model",
        ROBERTA | {"pad_token_id": 2},
        "bpe",
        refused="pad_token_id 2",
    ),
)

_TOKENIZERS = (
    Case(
        "tohoku-nlp/bert-base-japanese",
        "Bert",
        MASKED,
        layout="plain",
        files=tokenizer(tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="mecab"),
        refused="BertJapaneseTokenizer",
    ),
    Case(
        "vinai/bertweet-base",
        "Roberta",
        MASKED,
        ROBERTA,
        "bpe",
        files=tokenizer(tokenizer_class="BertweetTokenizer"),
        refused="BertweetTokenizer",
    ),
    Case(
        "a tokenizer of code",
        "Bert",
        files=tokenizer(auto_map={"AutoTokenizer": ["tokenization_x.X", None]}),
        refused="auto_map",
    ),
    Case(
        "special tokens that are split",
        "Bert",
        files=tokenizer(split_special_tokens=True),
        refused="split_special_tokens",
    ),
    Case(
        "a BPE tokenizer said to be BERT's",
        "Roberta",
        "Model",
        ROBERTA,
        "bpe",
        files=tokenizer(tokenizer_class="BertTokenizer"),
        refused="BertTokenizer",
    ),
)

_MODULES = (
    _pooling("prompts that are not pooled", "include_prompt", include_prompt=False),
    _pooling("a pooling of another kind", "pooling_mode_attention", pooling_mode_attention=True),
    _pooling("a width of another model", "word_embedding_dimension", word_embedding_dimension=32),
    Case(
        "vectors that are cut",
        "Bert",
        files=LOWER | newer("mean", {"truncate_dim": 16}),
        refused="truncate_dim",
    ),
    Case(
        "a Dense with a residual",
        "Bert",
        files=LOWER
        | sentence("mean_tokens", then=("Dense",))
        | {
            "2_Dense/config.json": {
                **dense(TANH, 64)["2_Dense/config.json"],
                "use_residual": True,
            }
        },
        dense=((64, 64),),
        refused="use_residual",
    ),
    Case(
        "sentence-transformers/average_word_embeddings_glove.6B.300d",
        "Bert",
        files={
            "modules.json": [
                {"idx": 0, "name": "0", "path": "0_WordEmbeddings", "type": f"{ST}WordEmbeddings"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{ST}Pooling"},
            ]
        },
        refused="WordEmbeddings",
    ),
    Case(
        "naver/splade-v3",
        "Bert",
        MASKED,
        files={
            **LOWER,
            "config_sentence_transformers.json": {"model_type": "SparseEncoder"},
            "modules.json": [
                {"idx": 0, "name": "0", "path": "", "type": f"{ST}MLMTransformer"},
                {
                    "idx": 1,
                    "name": "1",
                    "path": "1_S",
                    "type": f"{ST}SpladePooling",
                },
            ],
        },
        refused="SparseEncoder",
    ),
    Case(
        "a LoRA adapter",
        "Bert",
        files={
            **CASED,
            "config.json": None,
            "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "bert"},
        },
        refused="adapter",
    ),
    Case(
        "google/electra-small-discriminator",
        "Electra",
        "ForPreTraining",
        {"embedding_size": 32},
        files=LOWER,
        refused="token embeddings of 32 numbers",
    ),
)

REFUSED = (*_FAMILIES, *_CONFIGS, *_TOKENIZERS, *_MODULES)
