"""Write a model of llama.cpp out of a checkpoint: what `llama_cpp` runs.

    python -m benchmarks.systems.gguf_model CHECKPOINT OUT.gguf --type q8_0

CHECKPOINT is a sentence-embedding checkpoint of the BERT family with mean pooling, as
`base_model` writes, or all-MiniLM-L6-v2. OUT is one file of the architecture `bert`: matrices of
the layers and words in the type that is asked for, as llama.cpp's own tools store them (words of
q4_0 files in q8_0, as they are the more sensitive), all else in float32.

Needs the package `gguf`. It may run in an interpreter without ONNX: nothing here imports it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf  # type: ignore[import-not-found]

from shard_tools.checkpoint.reader import Checkpoint
from sti.arrays import Float32Array

TYPES = ("q8_0", "q4_0")


_WORDS = "embeddings.word_embeddings"
_MODULES: Mapping[str, str] = {
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER_MODULES: Mapping[str, str] = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_SPECIAL: Mapping[str, str] = {
    "[PAD]": "add_pad_token_id",
    "[UNK]": "add_unk_token_id",
    "[CLS]": "add_bos_token_id",
    "[SEP]": "add_sep_token_id",
    "[MASK]": "add_mask_token_id",
}
_SPACE = "\u2581"
"""Before the first piece of a word."""


def write_model(checkpoint: Path, out: Path, kind: str) -> None:
    """Write the file.

    Args:
        checkpoint: read.
        out: its directory is made if need be; replaced.
        kind: one of ``TYPES``.

    Raises:
        CheckpointError: the checkpoint cannot be read; names the file.
        ValueError: it is of another architecture or pools otherwise; names the file.
    """
    with Checkpoint(checkpoint) as opened:
        config = _config(opened)
        out.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(out, "bert")
        _add_sizes(writer, config, kind)
        _add_words(writer, checkpoint / "vocab.txt", int(config["type_vocab_size"]))
        for name, values, stored in _tensors(opened, kind):
            data = gguf.quants.quantize(values, stored)
            writer.add_tensor(name, data, raw_dtype=stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The configuration, of a model that llama.cpp would compute alike."""
    config, where = checkpoint.config, checkpoint.directory / "config.json"
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
        raise ValueError(f"{where}: take a model_type of bert with a hidden_act of gelu")
    pooling = checkpoint.json("1_Pooling/config.json")
    if pooling is not None and not pooling.get("pooling_mode_mean_tokens"):
        raise ValueError(f"{checkpoint.directory}/1_Pooling/config.json: take one of mean pooling")
    return config


def _add_sizes(writer: Any, config: Mapping[str, Any], kind: str) -> None:
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(int(config["num_attention_heads"]))
    writer.add_layer_norm_eps(float(config["layer_norm_eps"]))
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def _add_words(writer: Any, path: Path, types: int) -> None:
    """The vocabulary: pieces inside a word bare, others with a mark before them."""
    words = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    pieces = [word if word in _SPECIAL else _piece(word) for word in words]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if word in _SPECIAL else gguf.TokenType.NORMAL for word in words]
    )
    writer.add_token_type_count(types)
    for word, add in _SPECIAL.items():
        if word in words:
            getattr(writer, add)(words.index(word))


def _piece(word: str) -> str:
    return word[2:] if word.startswith("##") else _SPACE + word


def _tensors(checkpoint: Checkpoint, kind: str) -> Iterator[tuple[str, Float32Array, Any]]:
    """Name, values and type of every tensor of the file."""
    stored, whole = gguf.GGMLQuantizationType[kind.upper()], gguf.GGMLQuantizationType.F32
    prefix = "bert." if f"bert.{_WORDS}.weight" in checkpoint.names() else ""
    words = f"{prefix}{_WORDS}.weight"
    yield "token_embd.weight", _read(checkpoint, words), gguf.GGMLQuantizationType.Q8_0
    modules = {prefix + module: name for module, name in _MODULES.items()}
    for layer in range(int(checkpoint.config["num_hidden_layers"])):
        base = f"{prefix}encoder.layer.{layer}."
        modules |= {base + m: f"blk.{layer}.{name}" for m, name in _LAYER_MODULES.items()}
    for module, name in modules.items():
        # Checkpoints of TensorFlow descent call a norm's vectors gamma and beta.
        old = f"{module}.gamma" in checkpoint.names()
        weight, bias = ("gamma", "beta") if old else ("weight", "bias")
        values = _read(checkpoint, f"{module}.{weight}")
        in_layer = name.startswith("blk.") and values.ndim == 2
        yield f"{name}.weight", values, stored if in_layer else whole
        if f"{module}.{bias}" in checkpoint.names():
            yield f"{name}.bias", _read(checkpoint, f"{module}.{bias}"), whole


def _read(checkpoint: Checkpoint, name: str) -> Float32Array:
    return checkpoint.tensor(name, checkpoint.shape(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the model the command line asks for."""
    name = "python -m benchmarks.systems.gguf_model"
    parser = argparse.ArgumentParser(
        prog=name,
        description=__doc__,
        epilog=f"example: {name} /tmp/bert-base /tmp/bert-base.q8_0.gguf --type q8_0",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="directory to read")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write")
    parser.add_argument("--type", choices=TYPES, default=TYPES[0], help=f"default: {TYPES[0]}")
    options = parser.parse_args(arguments)
    write_model(options.checkpoint, options.out, options.type)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.0f} MB, {options.type}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
