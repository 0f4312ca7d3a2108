"""DistilBERT: BERT's blocks under other names, without types of tokens."""

from __future__ import annotations

from shard_tools.architectures.encoder.family import ConfigKeys, Family, TensorNames
from shard_tools.architectures.heads import names

DISTILBERT = Family(
    "distilbert",
    names.DISTILBERT,
    TensorNames(
        "distilbert.",
        types=None,
        layer="transformer.layer.{}.",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        ffn_norm="output_layer_norm",
    ),
    ConfigKeys(
        layers="n_layers",
        hidden="dim",
        heads="n_heads",
        inner="hidden_dim",
        activation="activation",
        types=None,
        epsilon=None,
        common={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
        },
    ),
)
