"""Between a checkpoint's tensors and the network's sliced parameters, both ways.

In: an open BERT-family checkpoint, or a network. Out: a network with the checkpoint's weights, or
tensors under the names of ``BertForSequenceClassification``. Knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shard_tools.architectures.bert.family import BERT
from shard_tools.architectures.encoder.config import read_config
from shard_tools.architectures.encoder.tensor_names import WORDS, encoder_prefix
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.train.network import OUTPUTS_LAST, ElasticNetwork, Sizes

_BLOCKS = {"attention": "attention.output", "ffn": "output"}
_MODULES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}


def sizes_of(checkpoint: Checkpoint, *, outputs: int, slices: int | None) -> Sizes:
    """The sizes of a network for this checkpoint with a head of ``outputs``."""
    config = read_config(checkpoint, BERT, slices=slices)
    return Sizes(**asdict(config.sizes), outputs=outputs)


def load_network(checkpoint: Checkpoint, sizes: Sizes, dtype: torch.dtype) -> ElasticNetwork:
    """A network with the encoder of a checkpoint; the head stays zero.

    Raises:
        CheckpointError: a tensor is missing or of another shape.
    """
    prefix = encoder_prefix(checkpoint)
    words = checkpoint.tensor(prefix + WORDS, (sizes.vocabulary, sizes.hidden))
    network = ElasticNetwork(sizes, words, dtype)
    old = f"{prefix}embeddings.LayerNorm.gamma" in checkpoint.names()
    with torch.no_grad():
        for name, parameter, shape, turned in _places(network):
            if old and ".LayerNorm." in name:  # as checkpoints of TensorFlow descent call them
                name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
            array = torch.from_numpy(checkpoint.tensor(prefix + name, shape))
            parameter.copy_((array.T if turned else array).reshape(parameter.shape))
    return network


def named_tensors(network: ElasticNetwork, prefix: str = "bert.") -> dict[str, NDArray[np.float32]]:
    """All tensors of a network under the checkpoint's names; new arrays."""
    found = {prefix + WORDS: np.array(network.words.detach().numpy())}
    for name, parameter, shape, turned in _places(network):
        array = parameter.detach().numpy()
        rows = array.reshape(shape[::-1]).T if turned else array.reshape(shape)
        found[prefix + name] = np.array(rows, dtype=np.float32, order="C")
    found["classifier.weight"] = np.array(network.classifier.detach().numpy())
    found["classifier.bias"] = np.array(network.classifier_bias.detach().numpy())
    return found


def _places(
    network: ElasticNetwork,
) -> Iterator[tuple[str, nn.Parameter, tuple[int, ...], bool]]:
    """Name, parameter, the tensor's shape, and whether the tensor is transposed."""
    sizes = network.sizes
    hidden, inner = sizes.hidden, sizes.inner
    vector = (hidden,)
    yield (
        "embeddings.position_embeddings.weight",
        network.positions,
        (sizes.positions, hidden),
        False,
    )
    yield (
        "embeddings.token_type_embeddings.weight",
        network.token_types,
        (sizes.types, hidden),
        False,
    )
    yield "embeddings.LayerNorm.weight", network.norm[0], vector, False
    yield "embeddings.LayerNorm.bias", network.norm[1], vector, False
    for number in range(sizes.layers):
        layer = network.layer(number)
        base = f"encoder.layer.{number}."
        for name, module in _MODULES.items():
            outputs = inner if name == "up" else hidden
            inputs = inner if name == "down" else hidden
            turned = name in OUTPUTS_LAST
            yield f"{base}{module}.weight", layer[name], (outputs, inputs), turned
            if not turned:
                yield f"{base}{module}.bias", layer[f"{name}_bias"], (outputs,), False
        for block, module in _BLOCKS.items():
            yield f"{base}{module}.dense.bias", layer[f"{block}_bias"], vector, False
            yield f"{base}{module}.LayerNorm.weight", layer[f"{block}_gamma"], vector, False
            yield f"{base}{module}.LayerNorm.bias", layer[f"{block}_beta"], vector, False
