"""Write ``tests/golden/families.json``: hidden states of small checkpoints, by transformers.

    python -m tests.tools.golden_families

Needs `transformers` and `torch`. Weights are not in it: ``tests.support.family_checkpoints`` makes
them from the names of tensors.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.support.family_checkpoints import weights

FILE = Path(__file__).resolve().parents[1] / "golden" / "families.json"
ROWS = [[2, 17, 9, 30, 4, 11, 3], [2, *range(5, 34), 3], [2, 3]]
FAR = [[2, *(5 + number % 30 for number in range(120)), 3]]
"""For families whose attention depends on distances."""
_KEPT = ("model_type", "architectures", "attn_implementation")

_SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "vocab_size": 40,
}
_DISTILBERT = {
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 24,
    "max_position_embeddings": 40,
    "vocab_size": 40,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForPreTraining", _SIZES),
    "bert, silu": ("BertModel", {**_SIZES, "hidden_act": "silu"}),
    "distilbert": ("DistilBertForMaskedLM", _DISTILBERT),
    "electra": ("ElectraForPreTraining", {**_SIZES, "embedding_size": 16, "hidden_act": "relu"}),
    "electra, narrow": ("ElectraModel", {**_SIZES, "embedding_size": 8}),
    "roberta": ("RobertaModel", {**_SIZES, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "xlm-roberta": ("XLMRobertaForMaskedLM", {**_SIZES, "pad_token_id": 0, "type_vocab_size": 1}),
    "camembert": ("CamembertModel", {**_SIZES, "hidden_act": "gelu_new"}),
    "mpnet": ("MPNetModel", {**_SIZES, "max_position_embeddings": 140}),
    "mpnet, buckets": ("MPNetForMaskedLM", {**_SIZES, "relative_attention_num_buckets": 36}),
}


def case(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """What a class of transformers computes."""
    kind = getattr(transformers, name)
    config = kind.config_class(**values, attn_implementation="eager")
    model = kind(config).eval()
    state = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    shapes = {key: shape for key, shape in state.items() if _is_used(key)}
    made = {key: torch.from_numpy(weights(key, shape)) for key, shape in shapes.items()}
    model.load_state_dict(made, strict=False)
    encoder = getattr(model, model.base_model_prefix, model)
    rows = FAR if values["max_position_embeddings"] > len(FAR[0]) else ROWS
    with torch.no_grad():
        states = [encoder(torch.tensor([row])).last_hidden_state[0].numpy() for row in rows]
    stored = {key: value for key, value in config.to_dict().items() if key in {*values, *_KEPT}}
    for key in ("type_vocab_size", "layer_norm_eps", "pad_token_id", "hidden_act", "activation"):
        if hasattr(config, key):
            stored[key] = getattr(config, key)
    stored |= {"model_type": config.model_type, "architectures": [name]}
    return {
        "config": stored,
        "rows": rows,
        "tensors": shapes,
        "states": [[float(f"{x:.6g}") for x in row] for row in np.concatenate(states).tolist()],
    }


def _is_used(name: str) -> bool:
    """Whether a tensor is the encoder's: others may share memory with its embeddings."""
    return not name.endswith("_ids") and not name.startswith(
        ("cls.", "lm_head.", "vocab_", "generator_", "discriminator_")
    )


if __name__ == "__main__":
    found = {name: case(*given) for name, given in CASES.items()}
    text = json.dumps(found, separators=(",", ":"))
    FILE.write_text(text + "\n", encoding="utf-8")
