"""Packs whose checksums are right and whose parts do not fit one another are refused at opening."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from benchmarks.security_harms import REFUSED, UNUSED
from benchmarks.security_hostile_kinds import KINDS
from benchmarks.security_packs import PackParts, Tensor
from sti.errors import PackError, PackFormatError
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.text.control_characters import is_one_line
from tests.support.packs import tiny_pack
from tests.support.ranked_packs import ranked_pack

AT_RUNS = frozenset(
    {"word rows not finite", "word rows damaged", "outlier lists", "checksums of pieces"}
)
"""Kinds that are found when the bytes are read."""

LARGE = frozenset(
    {"JSON of a million values", "JSON of many names", "layers and slices beyond"}
    | {"texts of megabytes", "JSON nested deep"}
)
"""Kinds that take long to make; `benchmarks.security` does."""

AT_OPENING = [
    name
    for name, kind in KINDS.items()
    if kind.due in (REFUSED, UNUSED) and name not in AT_RUNS | LARGE
]


def opened(parts: PackParts, place: Path) -> Manifest:
    """Open a pack as engines do, without computing anything."""
    place.write_bytes(parts.sealed())
    with PackReader.open_whole(place) as reader:
        pack_tokenizer(reader)
        reader.check_graphs()
        return reader.manifest


def resident(name: str, change: Callable[[np.ndarray[Any, Any]], object]) -> Any:
    return lambda parts: parts.change(name, change)


def shaped(name: str, *shape: int) -> Any:
    def change(parts: PackParts) -> None:
        parts.residents[name] = parts.residents[name]._replace(shape=shape)

    return change


def manifest(change: Callable[[dict[str, Any]], object]) -> Any:
    return lambda parts: change(parts.manifest)


INDEX = "layer.1.ffn.down_idx"

BROKEN: dict[str, tuple[Callable[[PackParts], object], str]] = {
    "no head": (manifest(lambda m: m["graphs"].pop("head")), "graph 'head' is missing"),
    "a graph more": (
        manifest(lambda m: m["graphs"].update(tail=m["graphs"]["head"])),
        "graph 'tail' is none that a pack has",
    ),
    "a label less": (manifest(lambda m: m["labels"].pop()), r"head.classifier_w.* must be F32"),
    "no labels": (manifest(lambda m: m["labels"].clear()), "0 labels do not fit the task"),
    "a label twice": (
        manifest(lambda m: m["labels"].__setitem__(0, m["labels"][1])),
        "a label is empty, or listed twice",
    ),
    "a label that clears the screen": (
        manifest(lambda m: m["labels"].__setitem__(0, "\x1b[2J")),
        "labels: .*control characters",
    ),
    "a name that turns round": (manifest(lambda m: m.update(name="a\u202eb")), "name: .*control"),
    "a source of a book": (manifest(lambda m: m.update(source="x" * 5000)), "source: a text of"),
    "more tokens than positions": (
        manifest(lambda m: m["dimensions"].update(max_tokens=49)),
        "embed.positions",
    ),
    "tokens without end": (
        manifest(lambda m: m["dimensions"].update(max_tokens=10**18)),
        "max_tokens is absurd, more than",
    ),
    "a tokenizer beyond the model": (
        manifest(lambda m: m["tokenizer"].update(max_tokens=49)),
        "49 tokens of the tokenizer are more",
    ),
    "a setting of another tokenizer": (
        manifest(lambda m: m["tokenizer"].update(strip=True)),
        "setting 'strip' is unknown",
    ),
    "two special tokens alike": (
        manifest(lambda m: m["tokenizer"].update(pad_token="[SEP]")),
        "are the same token",
    ),
    "a kind of another name": (
        manifest(lambda m: m["kinds"][0].update(name="a/../b")),
        "is no name of a block kind",
    ),
    "another kind of input": (
        manifest(lambda m: m["kinds"][0].update(input_kind="words")),
        "input_kind must be one of",
    ),
    "a loss beyond": (
        manifest(lambda m: m["submodels"][0].update(loss=1e300, missing=[], losses=[])),
        "a loss of more than",
    ),
    "a number that is none": (
        resident("embed.gamma", lambda a: a.__setitem__(3, np.nan)),
        "'embed.gamma' holds what is no finite",
    ),
    "an infinite position": (
        resident("embed.positions", lambda a: a.__setitem__((3, 3), np.inf)),
        "'embed.positions' holds what is no finite",
    ),
    "a scale beyond": (
        resident("layer.0.ffn.up_scale", lambda a: a.fill(1e30)),
        "'layer.0.ffn.up_scale' holds what is no finite or usual",
    ),
    "a bias of another shape": (
        shaped("layer.2.ffn.bias", 1, 32),
        "layer.2.ffn.bias.* must be F32",
    ),
    "no bias": (lambda parts: parts.residents.pop("layer.2.ffn.bias"), "ffn.bias' is missing"),
    "no gains": (lambda parts: parts.residents.pop("index.gains"), "'index.gains' is missing"),
    "a bias of another type": (
        lambda parts: parts.residents.update(
            {"layer.2.ffn.bias": Tensor.of(np.zeros(32, np.float16))}
        ),
        "must be F32",
    ),
    "a channel below": (resident(INDEX, lambda a: a.__setitem__(0, -1)), "must rise within 64"),
    "a channel beyond": (resident(INDEX, lambda a: a.__setitem__(-1, 64)), "must rise within 64"),
    "channels in a table": (
        lambda parts: shaped(INDEX, 1, *parts.residents[INDEX].shape)(parts),
        "must be a list of type I64",
    ),
    "a gain beyond": (resident("index.gains", lambda a: a.fill(3e38)), "a gain is negative or no"),
    "a bucket of all words": (
        lambda parts: KINDS["a bucket of all words"].harm(parts, Random(1)),
        "a bucket of the index has more",
    ),
    "a word of a page": (
        lambda parts: KINDS["a word of many bytes"].harm(parts, Random(1)),
        "a word has more than",
    ),
    "more words than rows": (
        lambda parts: KINDS["more words than rows"].harm(parts, Random(1)),
        "words of the vocabulary are more than",
    ),
    "an index of gigabytes": (
        manifest(lambda m: m["dimensions"].update(layers=10**6)),
        "not 2000000 blocks|must be the full model",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_parts_that_do_not_fit_are_refused(case: str, tmp_path: Path) -> None:
    parts = PackParts(ranked_pack())
    change, message = BROKEN[case]
    change(parts)
    with pytest.raises(PackFormatError, match=message) as caught:
        opened(parts, tmp_path / "pack")
    assert is_one_line(str(caught.value))


@pytest.mark.parametrize("kind", AT_OPENING)
def test_hostile_packs_are_refused_before_anything_is_computed(kind: str, tmp_path: Path) -> None:
    sound = PackParts(tiny_pack())
    for number in range(2):
        parts = sound.copy()
        KINDS[kind].harm(parts, Random(number))
        with pytest.raises(PackError) as caught:
            opened(parts, tmp_path / "pack")
        assert is_one_line(str(caught.value))


def test_a_member_that_nobody_knows_changes_nothing(tmp_path: Path) -> None:
    parts = PackParts(tiny_pack())
    parts.manifest["x"] = {"a": [1, 2]}
    assert opened(parts, tmp_path / "pack").name == parts.manifest["name"]


def test_parts_of_a_sound_pack_are_put_together_again_to_the_byte() -> None:
    assert PackParts(tiny_pack()).sealed() == tiny_pack().read_bytes()
