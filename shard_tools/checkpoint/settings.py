"""Whether every setting of a checkpoint's metadata files is known: the one place where it is asked.

In: an open checkpoint. Out: ``Settings``, which names those that are applied, those that are
harmless and those that nobody knows; or an error that names one that would change the answer and is
not supported. Which setting is on which list is data, ``settings.toml``; what a setting means is
known where it is read. A setting that is null counts as not there.
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.sentence_file import sentence_file
from sti.errors import CheckpointError

TABLES = "settings.toml"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a setting is refused, and the values that are not, since they change nothing."""

    unless: tuple[Any, ...]
    because: str


@dataclass(frozen=True, slots=True)
class SettingList:
    """The three lists of one kind of file."""

    about: str
    applied: frozenset[str]
    harmless: Mapping[str, str]
    """Names, and why."""
    refused: Mapping[str, Refusal]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a checkpoint, as ``file: name``, each list in the order of the files."""

    applied: tuple[str, ...]
    harmless: tuple[str, ...]
    unknown: tuple[str, ...]


@functools.cache
def setting_lists() -> Mapping[str, SettingList]:
    """The lists by kind of file."""
    text = resources.files("shard_tools.checkpoint").joinpath(TABLES).read_text(encoding="utf-8")
    return {
        name: SettingList(
            table["about"],
            frozenset(table["applied"]),
            {key: group["because"] for group in table.get("harmless", []) for key in group["keys"]},
            {
                item["key"]: Refusal(tuple(item["unless"]), item["because"])
                for item in table.get("refused", [])
            },
        )
        for name, table in tomllib.loads(text).items()
    }


def check_settings(checkpoint: Checkpoint, family: str) -> Settings:
    """Sort the settings of all metadata files.

    Args:
        family: the checkpoint's, by its ``model_type`` or what was taken for it.

    Raises:
        CheckpointError: one is refused, or a file is malformed; names file and setting.
        StorageError: a file cannot be read.
    """
    found: dict[str, list[str]] = {"applied": [], "harmless": [], "unknown": []}
    for file, values, kinds in _files(checkpoint, family):
        tables = [setting_lists()[kind] for kind in kinds]
        for key, value in values.items():
            if value is None:
                continue
            _refuse(f"{checkpoint.directory / file}", key, value, tables)
            found[_list_of(key, tables)].append(f"{file}: {key}")
    return Settings(*(tuple(found[name]) for name in ("applied", "harmless", "unknown")))


def _list_of(key: str, tables: Iterable[SettingList]) -> str:
    for table in tables:
        if key in table.applied:
            return "applied"
        if key in table.harmless or key in table.refused:
            return "harmless"
    return "unknown"


def _refuse(where: str, key: str, value: Any, tables: Iterable[SettingList]) -> None:
    for table in tables:
        refusal = table.refused.get(key)
        if refusal is not None and not any(_same(value, known) for known in refusal.unless):
            harmless = ", ".join(map(json.dumps, refusal.unless)) or "null"
            raise CheckpointError(
                f"{where}: {key} {json.dumps(value):.80} is not supported: {refusal.because}; "
                f"without effect is {harmless}"
            )


def _same(value: Any, known: Any) -> bool:
    """Equal, where true is not 1."""
    return value == known and isinstance(value, bool) == isinstance(known, bool)


def _files(
    checkpoint: Checkpoint, family: str
) -> Iterator[tuple[str, Mapping[str, Any], tuple[str, ...]]]:
    """Each object with settings: where it stands, its members, and which lists are for it."""
    yield "config.json", checkpoint.config, ("config.json", f"config.json of {family}")
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        yield file, _object(checkpoint, file), (file,)
    tokenizer = _object(checkpoint, "tokenizer.json")
    yield "tokenizer.json", tokenizer, ("tokenizer.json",)
    if isinstance(tokenizer.get("truncation"), Mapping):
        name = "tokenizer.json: truncation"
        yield name, tokenizer["truncation"], (name,)
    file = sentence_file(checkpoint.directory)
    yield file, _object(checkpoint, file), ("sentence_bert_config.json",)
    file = "config_sentence_transformers.json"
    yield file, _object(checkpoint, file), (file,)
    yield from _modules(checkpoint)


def _modules(checkpoint: Checkpoint) -> Iterator[tuple[str, Mapping[str, Any], tuple[str, ...]]]:
    """What ``modules.json`` lists, and the files of those modules; or a lone pooling module."""
    listed = checkpoint.json("modules.json")
    if not isinstance(listed, list):  # where it is no list, whoever reads it says so
        file = "1_Pooling/config.json"
        yield file, _object(checkpoint, file), ("config.json of Pooling",)
        return
    for number, module in enumerate(listed):
        if not isinstance(module, Mapping):
            continue
        yield f"modules.json: [{number}]", module, ("modules.json: a module",)
        kind = f"config.json of {str(module.get('type')).rpartition('.')[2]}"
        folder = PurePosixPath(str(module.get("path")))
        inside = bool(folder.parts) and not folder.is_absolute() and ".." not in folder.parts
        if kind in setting_lists() and inside:
            file = str(folder / "config.json")
            yield file, _object(checkpoint, file), (kind,)


def _object(checkpoint: Checkpoint, file: str) -> Mapping[str, Any]:
    """The members of a file; none where there is no such file."""
    found = checkpoint.json(file)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{checkpoint.directory / file}: expected a JSON object")
    return found
