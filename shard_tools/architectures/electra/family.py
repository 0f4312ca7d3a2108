"""ELECTRA: BERT's blocks, whose token embeddings may be narrower than the model.

Discriminators and generators are read as encoders.
"""

from __future__ import annotations

from shard_tools.architectures.encoder.family import ConfigKeys, Family, TensorNames
from shard_tools.architectures.heads import names

ELECTRA = Family(
    "electra",
    names.ELECTRA,
    TensorNames("electra."),
    ConfigKeys(embedding="embedding_size", default_embedding=128),
)
