"""Every setting of a checkpoint is applied, harmless or refused by name; unknown ones are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shard_tools.architectures.registry import FAMILIES
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.settings import Settings, check_settings, setting_lists
from shard_tools.packing.options import BuildOptions
from shard_tools.packing.source import Source, read_source
from sti.errors import CheckpointError
from tests.support.checkpoints import write_checkpoint
from tests.support.paths import GOLDEN, ROOT
from tests.tools import settings_page

TRIED = json.loads((GOLDEN / "harmless_settings.json").read_text(encoding="utf-8"))["settings"]
"""What ``benchmarks.harmless_settings`` varied without another answer."""

FILES = {
    "config.json": "config.json",
    "config.json of bert": "config.json",
    "tokenizer_config.json": "tokenizer_config.json",
    "sentence_bert_config.json": "sentence_bert_config.json",
    "config_sentence_transformers.json": "config_sentence_transformers.json",
    "config.json of Pooling": "1_Pooling/config.json",
}
"""Where a tiny checkpoint has the settings of a list."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def put(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    found = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found | values))


def sorted_settings(folder: Path) -> Settings:
    with Checkpoint(folder) as checkpoint:
        return check_settings(checkpoint, "bert")


def test_of_sentence_transformers_files_one_counts(folder: Path) -> None:
    put(folder, "sentence_roberta_config.json", max_seq_length=9)
    put(folder, "sentence_xlnet_config.json", do_lower_case=True)
    applied = [name for name in sorted_settings(folder).applied if name.startswith("sentence_")]
    assert applied == ["sentence_roberta_config.json: max_seq_length"]


def read(folder: Path) -> tuple[Any, ...]:
    """What a pack would be made of."""
    with Checkpoint(folder) as checkpoint:
        source: Source = read_source(checkpoint, BuildOptions())
        graphs = source.model.graph_spec({kind.name: () for kind in source.model.kinds})
        return graphs.to_json(), source.model.labels, source.tokenizer, source.vocabulary


def test_no_setting_is_on_two_lists() -> None:
    lists = setting_lists()
    for name, found in lists.items():
        above = [found]
        if name.startswith("config.json of ") and name.removeprefix("config.json of ").islower():
            above.append(lists["config.json"])
        every = [key for item in above for key in (*item.applied, *item.harmless, *item.refused)]
        assert len(every) == len(set(every)), name


def test_every_family_has_its_lists() -> None:
    assert all(f"config.json of {family}" in setting_lists() for family in FAMILIES)


def harmless() -> Iterator[tuple[str, str]]:
    for name, found in setting_lists().items():
        for key in found.harmless:
            yield name, key


def test_a_harmless_setting_was_varied_without_another_answer_of_the_reference() -> None:
    for name, key in harmless():
        values = [value for found in TRIED[name][key].values() for value in found]
        assert values, f"{name}: {key}: run `python -m benchmarks.harmless_settings`"


@pytest.mark.parametrize("name", FILES)
def test_a_harmless_setting_changes_nothing_that_a_pack_is_made_of(name: str, folder: Path) -> None:
    expected = read(folder)
    kept = {path: path.read_bytes() for path in folder.rglob("*.json")}
    for key in setting_lists()[name].harmless:
        put(folder, FILES[name], **{key: "left"})
        assert read(folder) == expected, key
        for path, before in kept.items():
            path.write_bytes(before)


@pytest.mark.parametrize(
    ("file", "key", "bad", "good"),
    [
        ("config.json", "is_decoder", True, False),
        ("config.json", "position_embedding_type", "relative_key", "absolute"),
        ("config.json", "quantization_config", {"bits": 4}, None),
        ("config.json", "auto_map", {"AutoModel": "x--y.Z"}, None),
        ("tokenizer_config.json", "split_special_tokens", True, False),
        ("tokenizer_config.json", "split_special_tokens", 0, False),
        ("sentence_bert_config.json", "transformer_task", "text-generation", "feature-extraction"),
        ("config_sentence_transformers.json", "truncate_dim", 64, None),
        ("1_Pooling/config.json", "include_prompt", False, True),
    ],
)
def test_a_refused_setting_is_named_unless_its_value_changes_nothing(
    file: str, key: str, bad: Any, good: Any, folder: Path
) -> None:
    put(folder, file, **{key: good})
    assert not sorted_settings(folder).unknown
    put(folder, file, **{key: bad})
    with pytest.raises(CheckpointError, match=rf"{file}: {key} .* is not supported: .*; without"):
        sorted_settings(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_an_unknown_setting_is_told(file: str, folder: Path) -> None:
    put(folder, file, alibi_slopes=2, nothing=None)
    assert sorted_settings(folder).unknown == (f"{file}: alibi_slopes",)


def test_modules_and_their_files_are_looked_through(folder: Path) -> None:
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling", "x": 1},
        {"idx": 2, "path": "../2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    put(folder, "1_Pooling/config.json", pooling_mode="mean", odd=1)
    found = sorted_settings(folder)
    assert found.unknown == ("modules.json: [1]: x", "1_Pooling/config.json: odd")
    assert "1_Pooling/config.json: pooling_mode" in found.applied


def test_an_applied_setting_is_named_where_it_is_read() -> None:
    folders = ("checkpoint", "architectures", "packing")
    texts = "".join(
        path.read_text(encoding="utf-8")
        for folder in folders
        for path in (ROOT / "shard_tools" / folder).rglob("*.py")
        if path.name not in ("settings.py", "summary.py")
    )
    missing = [
        f"{name}: {key}"
        for name, found in setting_lists().items()
        for key in sorted(found.applied)
        if f'"{key}"' not in texts
    ]
    assert not missing


def test_the_page_of_settings_is_true() -> None:
    written = settings_page.PAGE.read_text(encoding="utf-8")
    assert written == settings_page.page(), "run `python -m tests.tools.settings_page`"
