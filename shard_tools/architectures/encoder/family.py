"""What tells one family of post-norm encoders from another, as data.

Out: ``Family``, from which ``shard_tools.architectures.encoder`` reads the configuration and the
tensors of a checkpoint. Each family states its own in a folder beside this one. Knows no
checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shard_tools.architectures.heads.names import HeadNames


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """What members of ``config.json`` are called, and what transformers takes where they are not.

    A name of None stands for what the family does not have, or does not let be chosen.
    """

    layers: str = "num_hidden_layers"
    hidden: str = "hidden_size"
    heads: str = "num_attention_heads"
    inner: str = "intermediate_size"
    activation: str = "hidden_act"
    types: str | None = "type_vocab_size"
    epsilon: str | None = "layer_norm_eps"
    default_epsilon: float = 1e-12
    default_positions: int = 512
    default_types: int = 2
    embedding: str | None = None
    """The width of the table of token embeddings, where it may differ from that of the model."""
    default_embedding: int = 0
    bucket_rows: str | None = None
    """Rows of the table of biases by bucket of distance."""
    default_bucket_rows: int = 0
    common: Mapping[str, str] = field(default_factory=dict)
    """Names of other families that are understood too, and which of these they stand for."""


@dataclass(frozen=True, slots=True)
class TensorNames:
    """What the tensors of an encoder are called, behind its prefix.

    Linear modules and norms are named without ``.weight`` and ``.bias``, those of a layer behind
    ``layer`` with its number.
    """

    prefix: str
    """Such as ``bert.``; checkpoints of the encoder alone have none."""
    types: str | None = "embeddings.token_type_embeddings.weight"
    layer: str = "encoder.layer.{}."
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    ffn_norm: str = "output.LayerNorm"
    distances: str | None = None
    """Biases by bucket of distance and head, which all layers share."""


@dataclass(frozen=True, slots=True)
class Family:
    """A family of post-norm encoders.

    Attributes:
        name: as packs have it.
        heads: what its heads are called.
        tensors: what its tensors are called.
        keys: what its configuration is called.
        buckets: of distances that attention tells apart: how many, of both directions, and the
            distance from which on they share the last one; None for none.
        padding: the number of the padding token, if positions of texts begin in the row behind it;
            None: they begin in the first row.
        padding_key: what the configuration calls it; None: it is always the same.
        typed_pairs: whether it tells the texts of a pair apart by type, if it has types at all.
    """

    name: str
    heads: HeadNames
    tensors: TensorNames
    keys: ConfigKeys = ConfigKeys()
    buckets: tuple[int, int] | None = None
    padding: int | None = None
    padding_key: str | None = None
    typed_pairs: bool = True
