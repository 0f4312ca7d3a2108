"""BERT: ``model_type`` ``bert``, and checkpoints of its descent that name no ``model_type``."""

from __future__ import annotations

from shard_tools.architectures.encoder.family import Family, TensorNames
from shard_tools.architectures.heads import names

BERT = Family("bert", names.BERT, TensorNames("bert."))
