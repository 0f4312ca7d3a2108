"""The sizes of a BERT-family model, from ``config.json``.

In: an open checkpoint, the number of slices that blocks are to be cut into. Out: a ``BertConfig``,
checked: variants whose arithmetic differs and sizes that cannot be cut are refused. Knows no
tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shard_tools.architectures.heads.names import BERT
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.blocks import Activation
from sti.errors import CheckpointError
from sti.json_fields import JsonFields

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
}


_LEAST_EPSILON = 1e-30
"""A variance of nothing is divided by its root, in float32."""
_MOST_LAYERS, _MOST_WIDTH, _MOST_ROWS = 1000, 1 << 16, 1 << 24
"""Some ten times what there are: blocks are planned before any tensor is looked for."""


@dataclass(frozen=True, slots=True)
class BertConfig:
    """What all layers share."""

    layers: int
    hidden: int
    heads: int
    inner: int
    """Neurons of the FFN."""
    slices: int
    positions: int
    types: int
    vocabulary: int
    epsilon: float
    activation: Activation


def read_config(checkpoint: Checkpoint, *, slices: int | None) -> BertConfig:
    """Read the configuration.

    Args:
        slices: vertical parts of every block; None for one a head.

    Raises:
        CheckpointError: a member is missing or not supported; says what is supported.
    """
    where = str(checkpoint.directory / "config.json")
    fields = JsonFields(checkpoint.config, where=where, error=CheckpointError)
    activation = _activation(fields)
    heads = fields.integer("num_attention_heads", least=1, most=_MOST_WIDTH)
    config = BertConfig(
        layers=fields.integer("num_hidden_layers", least=1, most=_MOST_LAYERS),
        hidden=fields.integer("hidden_size", least=1, most=_MOST_WIDTH),
        heads=heads,
        inner=fields.integer("intermediate_size", least=1, most=4 * _MOST_WIDTH),
        slices=heads if slices is None else slices,
        positions=fields.integer("max_position_embeddings", least=3, most=_MOST_ROWS),
        types=fields.integer("type_vocab_size", least=1, most=_MOST_ROWS),
        vocabulary=fields.integer("vocab_size", least=1, most=_MOST_ROWS),
        epsilon=fields.number("layer_norm_eps", least=_LEAST_EPSILON, most=1.0),
        activation=activation,
    )
    _check_sizes(config, where)
    return config


def _activation(fields: JsonFields) -> Activation:
    """The activation of the FFN; refuses variants of BERT whose arithmetic differs."""
    name = fields.text("hidden_act")
    if name not in _ACTIVATIONS:
        raise CheckpointError(
            f"{fields.where}: hidden_act {name!r} is not supported; supported: "
            f"{', '.join(_ACTIVATIONS)}"
        )
    position = fields.raw("position_embedding_type") or "absolute"
    if position != "absolute":
        raise CheckpointError(
            f"{fields.where}: position_embedding_type {position!r} is not supported; supported: "
            "absolute"
        )
    if fields.raw("is_decoder") or fields.raw("add_cross_attention"):
        raise CheckpointError(
            f"{fields.where}: decoders are not supported; supported: {BERT.supported()}"
        )
    return _ACTIVATIONS[name]


def _check_sizes(config: BertConfig, where: str) -> None:
    """Refuse sizes that cannot be divided into slices."""
    hidden, heads, inner, slices = config.hidden, config.heads, config.inner, config.slices
    if hidden % heads:
        raise CheckpointError(
            f"{where}: hidden_size {hidden} is no multiple of num_attention_heads {heads}"
        )
    if slices < 1 or heads % slices or inner % slices:
        good = [n for n in range(1, heads + 1) if heads % n == 0 and inner % n == 0]
        raise CheckpointError(
            f"{where}: {slices} slices do not divide {heads} heads and {inner} FFN "
            f"neurons; possible: {', '.join(map(str, good))}"
        )
    parts = {"a head": hidden * (hidden // heads), "an FFN slice": hidden * (inner // slices)}
    for name, weights in parts.items():
        if hidden % 2 or weights % 8:
            raise CheckpointError(
                f"{where}: a matrix of {name} has {weights} weights and the model a width "
                f"of {hidden}; they must be multiples of 8 and 2"
            )
