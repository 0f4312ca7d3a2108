"""Readers of the offline tools: checkpoints with their tokenizers, journals, states, data."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.elastic import read_elastic
from shard_tools.checkpoint.modelcard import licence_of
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.settings import check_settings
from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from shard_tools.data.rows import read_rows
from shard_tools.ranking.journal import Journal
from sti.errors import CheckpointError, InputError
from sti.text.tokenizer import Tokenizer
from tests.fuzz import sources
from tests.fuzz.target import Target, must
from tests.support.checkpoints import Shape, write_checkpoint

_TENSORS = "model.safetensors"
_LAYERS, _SLICES = 2, 4


@cache
def _checkpoint() -> Path:
    path = sources.place() / "sound"
    write_checkpoint(path, task="classification", shape=Shape(layers=1, hidden=8, inner=8), seed=0)
    return path


@cache
def _copy() -> Path:
    path = sources.place() / "checkpoint"
    shutil.copytree(_checkpoint(), path)
    return path


def _texts() -> dict[str, str]:
    """The text files of a checkpoint by their names."""
    found = {}
    for path in sorted(_checkpoint().rglob("*")):
        if path.suffix in (".json", ".txt", ".md"):
            found[str(path.relative_to(_checkpoint()))] = path.read_text(encoding="utf-8")
    return found


def _files(data: bytes) -> None:
    """A checkpoint whose text files are given, as JSON or as text, by their names."""
    given = sources.parsed(data)
    if not isinstance(given, dict):
        raise InputError("no files")
    place = _copy()
    for name in {*_KNOWN, *_texts()}:
        value = given.get(name)
        path = place / name
        if value is None:
            path.unlink(missing_ok=True)
            continue
        text = value if isinstance(value, str) else json.dumps(value)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    licence_of(place)
    try:
        spec, vocabulary, tables = load_tokenizer(place)
        Tokenizer(spec, vocabulary, tables).encode("the dog [SEP] runs")
    except CheckpointError:
        pass
    with Checkpoint(place) as checkpoint:
        check_settings(checkpoint, "bert")
        read_elastic(checkpoint, layers=_LAYERS)
        open_model(checkpoint)


_KNOWN = ("tokenizer.json", "elastic.json", "special_tokens_map.json", "vocab.txt", "README.md")


def _sound_files() -> list[bytes]:
    texts = {
        name: json.loads(text) if name.endswith(".json") else text
        for name, text in _texts().items()
    }
    gains = {"layer": 0, "kind": "ffn", "gains": [[1.0] * _SLICES] * 2}
    elastic = {
        "elastic": 1,
        "slices": _SLICES,
        "depths": {"1": [0], "2": [0, 1]},
        "widths": [2, 4],
        "ladder": [2, 4],
        "importance": {"measure": "fisher", "examples": 9, "blocks": [gains]},
    }
    words = texts.get("vocab.txt", "").splitlines()
    full = {
        "model": {
            "type": "WordPiece",
            "vocab": {word: number for number, word in enumerate(words)},
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "normalizer": {
            "type": "BertNormalizer",
            "lowercase": True,
            "strip_accents": None,
            "clean_text": True,
            "handle_chinese_chars": True,
        },
        "post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]},
        "added_tokens": [{"id": 0, "content": words[0], "special": True}] if words else [],
    }
    card = "---\nlicense: apache-2.0\n---\n"
    return [
        sources.dumped({**texts, "elastic.json": elastic, "README.md": card}),
        sources.dumped({**texts, "tokenizer.json": full, "vocab.txt": None}),
    ]


def _tensors(data: bytes) -> None:
    """A checkpoint whose tensor file begins with this header."""
    place = sources.place() / "tensors"
    if not place.exists():
        shutil.copytree(_checkpoint(), place)
    sound = (_checkpoint() / _TENSORS).read_bytes()
    body = sound[8 + int.from_bytes(sound[:8], "little") :]
    sources.written(f"tensors/{_TENSORS}", len(data).to_bytes(8, "little") + data + body)
    with Checkpoint(place) as checkpoint:
        model = open_model(checkpoint)
        model.residents(8)
        model.block(0, "ffn")
        model.block(0, "attention")
        model.token_rows(0, 2)


def _sound_tensors() -> list[bytes]:
    sound = (_checkpoint() / _TENSORS).read_bytes()
    return [sound[8 : 8 + int.from_bytes(sound[:8], "little")]]


def _journal(data: bytes) -> None:
    """A journal of these bytes, sealed."""
    path = sources.written("journal.npz", hashlib.sha256(data).digest() + data)
    journal = Journal(path, "key", (2,))
    for name in ("a", "b"):
        if name in journal:
            found = journal.step(name, lambda: np.zeros(2, np.float32))
            must(isinstance(found, np.ndarray), "a step is an array")


def _sound_journals() -> list[bytes]:
    found = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, key=np.array("key"), a=np.ones(3, np.float32), b=np.zeros((2, 2), np.float32))
        found.append(stream.getvalue())
    return found


def _state(data: bytes) -> None:
    """A training state of these bytes, sealed."""
    from shard_tools.train.state import load_state  # needs torch

    sealed = data + zlib.crc32(data).to_bytes(4, "little")
    load_state(sources.written("state", sealed), "key")


def _sound_states() -> list[bytes]:
    if find_spec("torch") is None:
        return []
    import torch

    from shard_tools.train.state import State, save_state

    path = sources.place() / "state"
    network = {"a": torch.ones(2), "b": [1, 2.5, None, "x", (True,)]}
    save_state(path, "key", State("elastic", 3, {1: (0,)}, network, network, [network]))
    return [path.read_bytes()[:-4]]


def _rows(data: bytes) -> None:
    """The same bytes as a table, as lines of JSON, and compressed."""
    for name in ("rows.tsv", "rows.jsonl", "rows.jsonl.gz"):
        for task in (None, "pair", "regression"):
            try:
                read_rows(sources.written(name, data), task=task, labelled=True)
            except InputError:
                continue


def _sound_rows() -> list[bytes]:
    lines = b'{"sentence": "a b", "label": "red"}\n{"sentence": "c", "label": 1.5}\n'
    pairs = b'{"sentence1": "a b", "sentence2": "c", "score": 0.5}\n'
    return [b"sentence\tlabel\na b\tred\nc\t1\n", lines, pairs, gzip.compress(lines, mtime=0)]


def targets() -> Sequence[Target]:
    """The targets of this module."""
    files = _sound_files()
    words = sources.names_in(*(json.loads(item) for item in files))
    return (
        Target("checkpoint", _files, _sound_files, "json", words),
        Target("tensors", _tensors, _sound_tensors, "json", ("F16", "BF16", "I64", "data_offsets")),
        Target("journal", _journal, _sound_journals, "bytes", ("key", "a.npy", "fortran_order")),
        Target("state", _state, _sound_states, "bytes", ("tensor", "map", "list", "float32", "[")),
        Target("rows", _rows, _sound_rows, "bytes", ("sentence", "label", "\t", "\r", "NaN")),
    )
