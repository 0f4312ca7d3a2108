"""The sizes of an encoder, from ``config.json``.

In: an open checkpoint, its family, the number of slices that blocks are to be cut into. Out: an
``EncoderConfig``, checked: variants whose arithmetic differs and sizes that cannot be cut are
refused; what ``config.json`` leaves out is what transformers takes for it, and told. Knows no
tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shard_tools.architectures.encoder.family import ConfigKeys, Family
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.blocks import Activation
from sti.errors import CheckpointError
from sti.json_fields import JsonFields

_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
}
_DEFAULT_ACTIVATION = "gelu"

_LEAST_EPSILON = 1e-30
"""A variance of nothing is divided by its root, in float32."""
_MOST_LAYERS, _MOST_WIDTH, _MOST_ROWS = 1000, 1 << 16, 1 << 24
"""Some ten times what there are: blocks are planned before any tensor is looked for."""
_MOST_BUCKETS = 256
_LEAST_POSITIONS = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """What all layers share."""

    layers: int
    hidden: int
    heads: int
    inner: int
    """Neurons of the FFN."""
    slices: int
    positions: int
    """Rows of the table of positions."""
    types: int
    """Types of tokens; 0 for a family that has none."""
    vocabulary: int
    epsilon: float
    activation: Activation


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """A checkpoint's configuration."""

    sizes: Sizes
    embedding: int
    """The width of the table of token embeddings."""
    first_position: int
    """The row of the first token of a text in the table of positions."""
    bucket_rows: int
    """Of the table of biases by bucket of distance; 0 for a family that has none."""
    told: tuple[str, ...]
    """What was taken for what ``config.json`` leaves out."""


def read_config(checkpoint: Checkpoint, family: Family, *, slices: int | None) -> EncoderConfig:
    """Read the configuration.

    Args:
        slices: vertical parts of every block; None for one a head.

    Raises:
        CheckpointError: a member is missing or not supported; says what is supported.
    """
    where = str(checkpoint.directory / "config.json")
    keys = family.keys
    fields = _Fields(_own_names(checkpoint.config, keys), where=where, error=CheckpointError)
    _refuse_variants(fields, family)
    heads = fields.integer(keys.heads, least=1, most=_MOST_WIDTH)
    hidden = fields.integer(keys.hidden, least=1, most=_MOST_WIDTH)
    sizes = Sizes(
        layers=fields.integer(keys.layers, least=1, most=_MOST_LAYERS),
        hidden=hidden,
        heads=heads,
        inner=fields.integer(keys.inner, least=1, most=4 * _MOST_WIDTH),
        slices=heads if slices is None else slices,
        positions=fields.given(
            "max_position_embeddings", keys.default_positions, least=_LEAST_POSITIONS
        ),
        types=0 if keys.types is None else fields.given(keys.types, keys.default_types, least=1),
        vocabulary=fields.integer("vocab_size", least=1, most=_MOST_ROWS),
        epsilon=_epsilon(fields, keys),
        activation=_activation(fields, keys.activation),
    )
    _check_sizes(sizes, where)
    first = _first_position(fields, family)
    if first + _LEAST_POSITIONS > sizes.positions:
        raise fields.fail("max_position_embeddings", f"at least {first + _LEAST_POSITIONS}")
    embedding, rows = hidden, 0
    if keys.embedding is not None:
        embedding = fields.given(keys.embedding, keys.default_embedding, least=1, most=_MOST_WIDTH)
    if family.buckets is not None and keys.bucket_rows is not None:
        least = family.buckets[0]
        rows = fields.given(
            keys.bucket_rows, keys.default_bucket_rows, least=least, most=_MOST_BUCKETS
        )
    return EncoderConfig(sizes, embedding, first, rows, tuple(fields.told))


class _Fields(JsonFields):
    """A configuration, some members of which may be left out.

    Attributes:
        told: what was taken for those that were.
    """

    __slots__ = ("told",)

    def __init__(self, value: object, *, where: str, error: type[CheckpointError]) -> None:
        super().__init__(value, where=where, error=error)
        self.told: list[str] = []

    def given(self, key: str, default: int, *, least: int = 0, most: int = _MOST_ROWS) -> int:
        """A whole number, or what transformers takes where it is left out."""
        if self.has(key):
            return self.integer(key, least=least, most=most)
        self.take(key, default)
        return default

    def take(self, key: str, default: object) -> None:
        """Note what is taken for a member that is left out."""
        self.told.append(f"config.json has no {key}; {default} was taken, as transformers does")


def _own_names(config: Mapping[str, Any], keys: ConfigKeys) -> Mapping[str, Any]:
    """The configuration by the family's own names; where both are there, the common ones count."""
    given = {own: config.get(common) for common, own in keys.common.items()}
    return {**config, **{own: value for own, value in given.items() if value is not None}}


def _first_position(fields: _Fields, family: Family) -> int:
    """The row of the first token of a text in the table of positions."""
    if family.padding is None:
        return 0
    if family.padding_key is None:
        return family.padding + 1
    return fields.given(family.padding_key, family.padding) + 1


def _epsilon(fields: _Fields, keys: ConfigKeys) -> float:
    if keys.epsilon is not None and fields.has(keys.epsilon):
        return fields.number(keys.epsilon, least=_LEAST_EPSILON, most=1.0)
    if keys.epsilon is not None:
        fields.take(keys.epsilon, keys.default_epsilon)
    return keys.default_epsilon


def _activation(fields: _Fields, key: str) -> Activation:
    """The activation of the FFN."""
    if not fields.has(key):
        fields.take(key, _DEFAULT_ACTIVATION)
    name = fields.text(key) if fields.has(key) else _DEFAULT_ACTIVATION
    if name not in _ACTIVATIONS:
        raise CheckpointError(
            f"{fields.where}: {key} {name!r:.80} is not supported; supported: "
            f"{', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]


def _refuse_variants(fields: JsonFields, family: Family) -> None:
    """Refuse variants of a family whose arithmetic differs."""
    position = fields.raw("position_embedding_type") or "absolute"
    if position != "absolute":
        raise CheckpointError(
            f"{fields.where}: position_embedding_type {position!r:.80} is not supported; "
            "supported: absolute"
        )
    if any(fields.raw(key) for key in ("is_decoder", "add_cross_attention", "is_encoder_decoder")):
        raise CheckpointError(
            f"{fields.where}: decoders are not supported; supported: {family.heads.supported()}"
        )


def _check_sizes(sizes: Sizes, where: str) -> None:
    """Refuse sizes that cannot be divided into slices."""
    hidden, heads, inner, slices = sizes.hidden, sizes.heads, sizes.inner, sizes.slices
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
