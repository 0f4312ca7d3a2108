"""MPNet: BERT's blocks, whose attention has biases by distance; no types of tokens."""

from __future__ import annotations

from shard_tools.architectures.encoder.family import ConfigKeys, Family, TensorNames
from shard_tools.architectures.heads import names

MPNET = Family(
    "mpnet",
    names.MPNET,
    TensorNames(
        "mpnet.",
        types=None,
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        distances="encoder.relative_attention_bias.weight",
    ),
    ConfigKeys(
        types=None,
        bucket_rows="relative_attention_num_buckets",
        default_bucket_rows=32,
    ),
    # transformers sizes the table by the configuration, and always looks up 32 buckets in it.
    buckets=(32, 128),
    padding=1,
)
