"""Offload of accelerate, a system under test: ``python -m benchmarks.systems.torch_offload``.

The spec's file is a sentence-embedding checkpoint of the BERT family (mean pooling, L2 norm):
transformers' `BertModel` in float32, all of it offloaded to disk by accelerate. Every module's
weights are taken from the checkpoint's `model.safetensors` just before it computes, and let go
afterwards, at every run; nothing is read ahead. The reads go through the page cache, where a run
that follows another finds what it needs as long as the system has memory to spare.

Needs the packages `torch`, `transformers` and `accelerate`, which may be installed in an
interpreter of their own: nothing here imports ONNX Runtime. Nothing is fetched from a network.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the libraries are imported

import numpy as np
import safetensors
import torch
from accelerate import init_empty_weights  # type: ignore[import-not-found]
from accelerate.hooks import attach_align_device_hook  # type: ignore[import-not-found]
from accelerate.utils import OffloadedWeightsLoader  # type: ignore[import-not-found]
from transformers import BertConfig, BertModel  # type: ignore[import-not-found]

from sti.arrays import Float32Array
from sti.benchmark.system_process import Opened, Opener, ResidentSystem, Spec, serve

_TENSORS = "model.safetensors"
_PREFIX = "bert."


def offloaded(directory: Path) -> Any:
    """The encoder with every weight left in the checkpoint's file.

    Raises:
        ValueError: the file lacks weights under the names that transformers has for them.
    """
    config = BertConfig.from_pretrained(directory)
    with init_empty_weights():
        model = BertModel(config, add_pooling_layer=False).eval()
    path = directory / _TENSORS
    with safetensors.safe_open(path, framework="pt") as stream:
        names = {name.removeprefix(_PREFIX): name for name in stream.keys()}
    wanted = [name for name, _ in model.named_parameters()]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"{path}: tensor {missing[0]!r} is missing; save it with transformers")
    index = {
        name: {"safetensors_file": str(path), "weight_name": names[name], "dtype": "float32"}
        for name in wanted
    }
    attach_align_device_hook(
        model,
        execution_device=torch.device("cpu"),
        offload=True,
        weights_map=OffloadedWeightsLoader(index=index),
    )
    return model


def prepare(spec: Spec) -> Opener:
    """Token ids are padded beforehand.

    Raises:
        ValueError: the checkpoint has no `model.safetensors`.
    """
    directory = Path(spec.file)
    if not (directory / _TENSORS).is_file():
        raise ValueError(f"{directory / _TENSORS}: no such file; is this a checkpoint?")
    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    rows = [torch.tensor(row) for row in spec.ids]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)

    def opener() -> Opened:
        model = offloaded(directory)

        def answer() -> Float32Array:
            with torch.inference_mode():
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
                present = mask.unsqueeze(-1).float()
                pooled = (hidden * present).sum(dim=1) / present.sum(dim=1)
                found = torch.nn.functional.normalize(pooled, dim=1).numpy()
            return np.asarray(found, dtype=np.float32)

        return ResidentSystem(answer)

    return opener


if __name__ == "__main__":
    sys.exit(serve(prepare))
