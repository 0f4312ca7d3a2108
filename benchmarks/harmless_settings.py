"""Vary every harmless setting of checkpoints, and see that the reference's answer stays the same.

    python -m benchmarks.harmless_settings -o tests/golden/harmless_settings.json

The settings, and the values of refused ones that are harmless, are those of
``shard_tools/checkpoint/settings.toml``. Each is set in a tiny random checkpoint of every family
that it is for, to values of every type; values that transformers refuses to load are left out.
Ids and types must be equal; logits, hidden states and vectors within 1e-6. What was tried is
written as a table, which the tests compare with the lists. Exit code 1 if an answer changed. Needs
torch and transformers; without sentence-transformers its files are left as they are in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.metadata
import importlib.util
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harmless_references import (
    CLASSES,
    Answer,
    classified,
    embedded,
    tokenized,
    write_model,
    write_sentence_model,
    write_tokenizer,
)
from shard_tools.checkpoint.settings import SettingList, setting_lists

POOL: tuple[Any, ...] = (True, False, 3, 0.25, "left", ["x"], {"x": 1})
"""Values of every type."""
NAMED: dict[str, tuple[Any, ...]] = {
    "dtype": ("float32",),
    "torch_dtype": ("float32",),
    "_attn_implementation": ("eager", "sdpa"),
    "attn_implementation": ("eager", "sdpa"),
    "padding_side": ("left", "right"),
    "truncation_strategy": ("longest_first", "only_first", "only_second"),
    "strategy": ("LongestFirst", "OnlyFirst", "OnlySecond"),
    "errors": ("replace", "strict"),
    "similarity_fn_name": ("cosine", "dot", "euclidean"),
    "__version__": ({"sentence_transformers": "2.0.0"}, {"transformers": "4.6.1"}),
    "version": ("1.0",),
    "name": ("0", "another"),
    "padding": (
        {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0},
        {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 0},
    ),
    "decoder": ({"type": "WordPiece", "prefix": "##", "cleanup": False}, {"type": "Fuse"}),
    "output_attentions": (True, False),
    # Of CrossEncoder, vectors are not asked: it is for classifiers.
    "model_type": ("SentenceTransformer",),
    "id2label": (),
}
"""Values of settings that have names of their own."""


class Place(NamedTuple):
    """Where settings are varied: a folder, a file in it, and an object in that."""

    table: str
    """The list of settings."""
    label: str
    folder: Path
    file: str
    part: tuple[str | int, ...]
    answer: Answer


def places(work: Path, families: Collection[str], only: str) -> Iterator[Place]:
    """A place for every kind of file, and for every family that has it."""
    for place in _places(work, families):
        if place.table.startswith(only):
            yield place


def _places(work: Path, families: Collection[str]) -> Iterator[Place]:
    for family in families:
        folder = work / f"model-{family}"
        write_model(family, folder)
        for table in (f"config.json of {family}", "config.json"):
            yield Place(table, family, folder, "config.json", (), classified)
    for family in ("bert", "roberta", "xlm-roberta"):
        folder = work / f"tokenizer-{family}"
        write_tokenizer(family, folder, full=True)
        for table in ("tokenizer_config.json", "tokenizer.json"):
            yield Place(table, family, folder, table, (), tokenized)
        table = "tokenizer.json: truncation"
        yield Place(table, family, folder, "tokenizer.json", ("truncation",), tokenized)
    folder = work / "tokenizer-vocab"
    write_tokenizer("bert", folder, full=False)
    yield Place(
        "tokenizer_config.json", "vocab.txt", folder, "tokenizer_config.json", (), tokenized
    )
    if importlib.util.find_spec("sentence_transformers") is None:
        return
    folder = work / "sentence"
    write_sentence_model(folder)
    for table in ("sentence_bert_config.json", "config_sentence_transformers.json"):
        yield Place(table, "vectors", folder, table, (), embedded)
    yield Place("modules.json: a module", "vectors", folder, "modules.json", (1,), embedded)
    for number, kind in enumerate(("Pooling", "Dense", "Normalize", "Dropout"), 1):
        file = f"{number}_{kind}/config.json"
        yield Place(f"config.json of {kind}", "vectors", folder, file, (), embedded)


def candidates(found: SettingList) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Harmless settings with values of every type, refused ones with their harmless values."""
    for key in sorted(found.harmless):
        yield key, NAMED.get(key, POOL)
    for key, refusal in sorted(found.refused.items()):
        yield key, NAMED.get(key, refusal.unless)


def varied(place: Place, key: str, values: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """Values that were loaded, and those of them that changed the answer."""
    path = place.folder / place.file
    kept = path.read_bytes() if path.exists() else None
    before = place.answer(place.folder)
    tried, changed = [], []
    try:
        for value in values:
            document = json.loads(kept) if kept is not None else {}
            inner = document
            for step in place.part:
                if isinstance(inner, dict) and inner.get(step) is None:
                    inner[step] = copy.deepcopy(TRUNCATION)
                inner = inner[step]
            inner[key] = with_all(key, value)
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(document), encoding="utf-8")
            try:
                after = place.answer(place.folder)
            except Exception:
                continue
            tried.append(value)
            if not same(before, after):
                changed.append(value)
    finally:
        if kept is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(kept)
    return tried, changed


def same(before: Any, after: Any) -> bool:
    """Whether two answers are: ids to the last, numbers but for the order of addition."""
    if isinstance(before, np.ndarray):
        return before.shape == after.shape and bool(np.allclose(before, after, rtol=0, atol=1e-6))
    return before == after


TRUNCATION = {"max_length": 64, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}


def with_all(key: str, value: Any) -> Any:
    """A value with what else the format asks for."""
    if key == "padding" and isinstance(value, dict):
        return value | {"pad_type_id": 0, "pad_token": "[PAD]"}
    return value


def main() -> int:
    """Vary all, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the table to write")
    parser.add_argument("--only", default="", help="kinds of files whose names begin so")
    parser.add_argument("--families", nargs="*", default=list(CLASSES), help="of config.json")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    table = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
    tables: dict[str, Any] = table.get("settings", {})
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        for place in places(Path(work), args.families, args.only):
            found = tables.setdefault(place.table, {})
            lists = dict(candidates(setting_lists()[place.table]))
            tables[place.table] = {key: value for key, value in found.items() if key in lists}
            for key, values in lists.items():
                tried, changed = varied(place, key, values)
                tables[place.table].setdefault(key, {})[place.label] = tried
                if changed:
                    failed += 1
                    print(f"{place.table}: {key} changes the answer of {place.label}: {changed}")
            print(f"{place.table}: {place.label}: done", flush=True)
            write(args.output, table.get("versions", {}), tables)
    return 1 if failed else 0


def write(path: Path, before: dict[str, str], tables: dict[str, Any]) -> None:
    """The table, a line for each setting."""
    versions = {}
    for name in ("tokenizers", "torch", "transformers", "sentence-transformers"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    head = {"made": datetime.now(UTC).date().isoformat(), "versions": before | versions}
    lines = [f'"{name}": {json.dumps(value)},' for name, value in head.items()]
    files = []
    for file, keys in sorted(tables.items()):
        rows = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(keys.items())]
        files.append(f"{json.dumps(file)}: {{\n" + ",\n".join(rows) + "\n}")
    body = "\n".join(["{", *lines, '"settings": {', ",\n".join(files), "}", "}", ""])
    path.write_text(body, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
