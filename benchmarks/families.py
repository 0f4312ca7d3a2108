"""Families of checkpoints against transformers: float references, and packs of 8 bits.

    python -m benchmarks.families [--seed N] [NAME ...]

For each case, transformers makes a small random checkpoint, whose weights are scaled up so that
every part counts. Its hidden states are compared with the float reference of its family, and the
embedding of a pack of 8 bits with that of transformers, token embeddings being what 4 bits can
hold, and positions what 16 can, for all; beside it, what ONNX Runtime's dynamic
quantization of the same weights (int8, per channel) reaches. Needs `transformers` and `torch`.
Tokenizers are no part of this: all take the same word pieces.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.float_reference import reference_states
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.measuring.forward import Forward, uniform_precision
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from shard_tools.quantization.embedding_table import encode_rows, group_size
from sti.arrays import Float32Array
from sti.codec.word_rows import decode_rows
from sti.errors import StiError
from sti.pack.pack_reader import PackReader

WORDS = 400
LENGTHS = (23, 9, 16)
_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_FLOAT_LIMIT = 1e-4


@dataclass(frozen=True, slots=True)
class Case:
    """A configuration: the class in transformers, and what differs from small sizes."""

    name: str
    config: str
    changes: Mapping[str, Any]
    model: str = ""
    """The class of the model; empty for the bare encoder."""


_BERT = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 40,
}
_DISTILBERT = {
    "dim": 64,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 128,
    "max_position_embeddings": 40,
}

CASES = (
    Case("bert", "BertConfig", _BERT),
    *(
        Case(f"bert {name}", "BertConfig", {**_BERT, "hidden_act": name})
        for name in ("gelu_new", "gelu_pytorch_tanh", "relu", "silu")
    ),
    Case("bert one type", "BertConfig", {**_BERT, "type_vocab_size": 1}),
    Case("bert masked lm", "BertConfig", _BERT, "BertForMaskedLM"),
    Case("bert pretraining", "BertConfig", _BERT, "BertForPreTraining"),
    Case("distilbert", "DistilBertConfig", _DISTILBERT),
    Case("distilbert relu", "DistilBertConfig", {**_DISTILBERT, "activation": "relu"}),
    Case("electra", "ElectraConfig", {**_BERT, "embedding_size": 64}),
    Case(
        "electra pretraining",
        "ElectraConfig",
        {**_BERT, "embedding_size": 64},
        "ElectraForPreTraining",
    ),
    Case("electra narrow", "ElectraConfig", {**_BERT, "embedding_size": 32}),
    Case("roberta", "RobertaConfig", {**_BERT, "type_vocab_size": 1}),
    Case("roberta padding 3", "RobertaConfig", {**_BERT, "pad_token_id": 3}),
    Case("xlm-roberta", "XLMRobertaConfig", {**_BERT, "type_vocab_size": 1}),
    Case("camembert", "CamembertConfig", {**_BERT, "type_vocab_size": 1}),
    Case("mpnet", "MPNetConfig", _BERT),
    Case(
        "mpnet far",
        "MPNetConfig",
        {**_BERT, "max_position_embeddings": 300, "relative_attention_num_buckets": 40},
    ),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a case gave."""

    float_difference: float
    """Largest difference of a hidden state."""
    cosine: float
    """Least of a text's embedding, of the pack and of transformers."""
    onnx_cosine: float


def make_checkpoint(case: Case, directory: Path, seed: int) -> Any:
    """Write a checkpoint; the encoder of transformers, ready to be asked."""
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config = getattr(transformers, case.config)(
        vocab_size=WORDS, attn_implementation="eager", **case.changes
    )
    name = case.model or case.config.replace("Config", "Model")
    made = getattr(transformers, name)(config)
    with torch.no_grad():
        for key, tensor in made.named_parameters():
            if "LayerNorm" in key or "layer_norm" in key:
                tensor.add_(torch.randn_like(tensor) * 0.1)
            else:
                tensor.copy_(torch.randn_like(tensor) * (1.0 if "_bias" in key else 0.12))
            if "position_embeddings" in key:
                tensor.copy_(tensor.half())  # as packs keep them
            if "word_embeddings" in key:
                tensor.copy_(torch.from_numpy(four_bits(tensor.numpy())))
    made.save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(_vocabulary()) + "\n", encoding="utf-8")
    settings = json.dumps({"tokenizer_class": "BertTokenizer"})
    (directory / "tokenizer_config.json").write_text(settings, encoding="utf-8")
    encoder = getattr(made, made.base_model_prefix) if case.model else made
    return encoder.eval()


def four_bits(words: Float32Array) -> Float32Array:
    """Token embeddings as packs keep them: what is compared is what comes after."""
    count, hidden = words.shape
    group = group_size(hidden)
    rows, found = encode_rows(words, group=group, first=0), np.empty_like(words)
    decode_rows(rows, np.arange(count), group=group, out=found)
    return found


def _vocabulary() -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    found = [*_SPECIALS, *letters, *(f"##{letter}" for letter in letters)]
    return found + [f"word{number}" for number in range(WORDS - len(found))]


def expected_states(encoder: Any, rows: Sequence[Sequence[int]]) -> list[Float32Array]:
    """Hidden states of each text alone, by transformers."""
    import torch

    with torch.no_grad():
        return [encoder(torch.tensor([list(row)])).last_hidden_state[0].numpy() for row in rows]


def measure(case: Case, directory: Path, seed: int) -> Found:
    """Compare one case.

    Raises:
        StiError: it is refused.
    """
    encoder = make_checkpoint(case, directory, seed)
    rng = np.random.default_rng(seed)
    most = min(int(case.changes["max_position_embeddings"]) - 8, 220)
    lengths = (*LENGTHS, most)
    words = [[f"word{n}" for n in rng.integers(0, 300, length - 2)] for length in lengths]
    first = _vocabulary().index("word0")
    rows = [[2, *(first + int(word[4:]) for word in text), 3] for text in words]
    expected = expected_states(encoder, rows)
    with Checkpoint(directory) as opened:
        found = reference_states(open_model(opened), rows)
    difference = float(np.abs(found - np.concatenate(expected)).max())
    pooled = np.stack([states.mean(axis=0) for states in expected])
    target = directory / "pack.sti.safetensors"
    build(directory, target, BuildOptions(ladder=(2, 4, 8)), progress=False)
    with PackReader.open(target) as reader, Forward(reader, threads=1) as forward:
        texts = forward.batches([" ".join(text) for text in words])
        manifest = reader.manifest
        embeddings = forward.logits(texts, uniform_precision(manifest, manifest.submodels[0], 8))
    return Found(
        difference, _least_cosine(embeddings, pooled), _onnx(encoder, rows, pooled, directory)
    )


def _least_cosine(found: Float32Array, expected: Float32Array) -> float:
    sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float(((found * expected).sum(axis=1) / sizes).min())


def _onnx(
    encoder: Any, rows: Sequence[Sequence[int]], pooled: Float32Array, directory: Path
) -> float:
    """What ONNX Runtime reaches with the same weights in int8."""
    import torch

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: Any) -> Any:
            return self.encoder(ids).last_hidden_state

    source, target = directory / "float.onnx", directory / "int8.onnx"
    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                States(),
                (torch.tensor([list(rows[0])]),),
                str(source),
                input_names=["ids"],
                dynamic_axes={"ids": {0: "batch", 1: "tokens"}},
                dynamo=False,
            )
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(quiet)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    found = [
        np.asarray(session.run(None, {"ids": np.array([row], dtype=np.int64)})[0])[0].mean(axis=0)
        for row in rows
    ]
    return _least_cosine(np.stack(found), pooled)


def chosen(names: Sequence[str]) -> Iterator[Case]:
    """The cases of these names; all where there is none."""
    for case in CASES:
        if not names or case.name in names:
            yield case


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the families; 1 where a float reference is too far off."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.families",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="cases; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    options = parser.parse_args(arguments)
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        print(f"{error.name} is missing: pip install torch transformers", file=sys.stderr)
        return 2
    print("case                   float      8 bits     ORT int8")
    wrong = 0
    for case in chosen(options.names):
        with tempfile.TemporaryDirectory() as place:
            try:
                found = measure(case, Path(place), options.seed)
            except StiError as error:
                print(f"{case.name:22} refused: {error}".replace(place, "DIR"))
                continue
        wrong += not found.float_difference <= _FLOAT_LIMIT
        told = f"{found.float_difference:.1e}    {found.cosine:.5f}    {found.onnx_cosine:.5f}"
        print(f"{case.name:22} {told}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
