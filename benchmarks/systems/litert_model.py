"""Write a model of LiteRT out of a checkpoint: what `litert_encoder` runs.

    python -m benchmarks.systems.litert_model CHECKPOINT OUT.tflite --tokens 128

CHECKPOINT is a sentence-embedding checkpoint of the BERT family with mean pooling. OUT takes
``input_ids [1, tokens]`` and gives the embedding ``[1, hidden]``, of length 1. It is quantized by
LiteRT's own tool: int8 weights, activations quantized as they come. Lengths are fixed, as is usual
there, so there is no mask.

Needs the packages `litert-torch`, `ai-edge-quantizer`, `torch` and `transformers`, which may be
installed in an interpreter of their own. Nothing is fetched from a network.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before the libraries are imported

import litert_torch  # type: ignore[import-not-found]
import torch
from ai_edge_quantizer import quantizer, recipe  # type: ignore[import-not-found]
from transformers import BertModel  # type: ignore[import-not-found]


class Encoder(torch.nn.Module):
    """Ids to embedding."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__()
        self.bert = BertModel.from_pretrained(
            checkpoint, add_pooling_layer=False, attn_implementation="eager"
        )

    def forward(self, ids: Any) -> Any:
        """``[1, tokens]`` to ``[1, hidden]``."""
        pooled = self.bert(input_ids=ids).last_hidden_state.mean(dim=1)
        return torch.nn.functional.normalize(pooled, dim=1)


def write(checkpoint: Path, target: Path, *, tokens: int) -> int:
    """Convert and quantize.

    Returns:
        Bytes of the model.
    """
    ids = torch.zeros((1, tokens), dtype=torch.int64)
    with TemporaryDirectory(dir=target.parent) as place:
        plain = Path(place) / "fp32.tflite"
        litert_torch.convert(Encoder(checkpoint).eval(), (ids,)).export(str(plain))
        made = quantizer.Quantizer(str(plain))
        made.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        made.quantize().export_model(str(target), overwrite=True)
    return target.stat().st_size


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the model the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.systems.litert_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--tokens", type=int, default=128, help="of the text; default: 128")
    options = parser.parse_args(arguments)
    size = write(options.checkpoint, options.out, tokens=options.tokens)
    print(f"{options.out}: {size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
