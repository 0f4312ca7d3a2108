"""Prompts: which one is put in front of texts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

import sti
from shard_tools.packing.build import build
from shard_tools.packing.options import BuildOptions
from sti.engine.replay import Recording, trace_document
from sti.pack.pack_reader import PackReader
from tests.support.checkpoints import write_checkpoint
from tests.support.packs import SHAPE, tiny_pack

PROMPTS = {"query": "the dog ", "none": "", "long": "dog " * 200}


def packed(directory: Path, settings: Mapping[str, object]) -> Path:
    write_checkpoint(directory / "checkpoint", shape=SHAPE)
    path = directory / "checkpoint" / "config_sentence_transformers.json"
    path.write_text(json.dumps(settings))
    build(directory / "checkpoint", directory / "pack", BuildOptions(), progress=False)
    return directory / "pack"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"prompts": PROMPTS, "default_prompt_name": "query", "similarity_fn_name": "dot"}
    return packed(tmp_path_factory.mktemp("prompts"), settings)


@pytest.fixture(scope="module")
def engine(pack: Path) -> Iterator[sti.Engine]:
    with sti.Engine.open(pack, fidelity=8) as opened:
        opened.run(["the dog", "a cat"])  # starts its threads
        yield opened


def test_the_default_is_put_in_front_of_texts_and_of_the_first_of_a_pair(
    engine: sti.Engine,
) -> None:
    texts = ["runs", ("runs", "under")]
    plain = engine.run(["the dog runs", ("the dog runs", "under")], prompt="")
    found = engine.run(texts)
    assert np.array_equal(found.embeddings, plain.embeddings)
    assert np.array_equal(engine.embed(texts), plain.embeddings)
    assert (found.texts, found.prompt, plain.prompt) == (tuple(texts), "the dog ", "")
    assert found.to_json()["prompt"] == "the dog " and "prompt" not in plain.to_json()
    assert found.tokens == sum(len(item.ids) for item in engine.tokenize(texts)) == plain.tokens


def test_another_prompt_is_chosen_by_its_name_or_given(engine: sti.Engine) -> None:
    bare = engine.embed(["runs"], prompt="")
    assert np.array_equal(engine.embed(["runs"], prompt_name="none"), bare)
    assert not np.array_equal(engine.embed(["runs"]), bare)
    streamed = [result.embeddings for result in engine.stream(["runs"], prompt="under ")]
    assert np.array_equal(np.concatenate(streamed), engine.embed(["under runs"], prompt=""))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_name": "passage"}, "no prompt 'passage'; it has: query, none, long"),
        ({"prompt_name": "query", "prompt": "x"}, "not both"),
        ({"prompt_name": "long"}, "fills all of the .* tokens"),
        ({"prompt": 7}, "must be a text"),
        ({"prompt_name": ["query"]}, "no prompt .'query'.; it has"),
        ({"prompt": "\ud800"}, "lone surrogate"),
        ({"threshold": 0.5}, "a threshold is for packs of the task multi_label"),
    ],
)
def test_what_cannot_be_put_in_front_is_refused(
    engine: sti.Engine, options: dict[str, object], message: str
) -> None:
    with pytest.raises(sti.InputError, match=message):
        engine.run(["runs"], **options)  # type: ignore[arg-type]


def test_places_in_texts_take_no_prompt() -> None:
    with sti.Engine.open(tiny_pack("tagging"), fidelity=8) as tagger:
        with pytest.raises(sti.InputError, match="places in texts"):
            tagger.run(["the dog"], prompt="a ")
        assert tagger.run(["the dog"], prompt="").spans


def test_a_pack_says_which_prompts_it_has_and_that_they_must_be_known(
    pack: Path, tmp_path: Path
) -> None:
    with PackReader.open(pack) as reader:
        manifest = reader.manifest
    assert manifest.prompts == (PROMPTS, "query")
    assert manifest.notes["similarity"] == "dot"
    assert json.loads(manifest.to_json())["requires"] == ["joined", "prompts"]
    assert manifest._replace(prompts=manifest.prompts._replace(default="")).features() == ["joined"]


def test_a_replay_has_the_prompt_that_was_recorded(engine: sti.Engine, tmp_path: Path) -> None:
    result = engine.run(["runs"], prompt="under ")
    (tmp_path / "trace").write_text(json.dumps(trace_document(engine.pack_id, [result])))
    (again,) = Recording.read(tmp_path / "trace").replay(engine, ["runs"])
    assert np.array_equal(again.embeddings, result.embeddings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": {"a": 7}}, "must be a string"),
        ({"prompts": {"a": "x"}, "default_prompt_name": "b"}, "one of a"),
        ({"prompts": {"a": "x" * 20_000}}, "16384 characters"),
        ({"prompts": {"a\nb": "x"}}, "no name of a prompt"),
        (
            {"prompts": {"a": "dog " * 200}, "default_prompt_name": "a"},
            "the default prompt, 'a', fills all of the .* tokens",
        ),
        ({"similarity_fn_name": "jaccard"}, "one of cosine"),
    ],
)
def test_prompts_that_cannot_be_are_named(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(sti.CheckpointError, match=f"config_sentence_transformers.*{message}"):
        packed(tmp_path, settings)
