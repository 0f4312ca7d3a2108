"""``sti-shard share`` and what other commands say of parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sti.pack.pack_reader import PackReader
from tests.support.commands import Cli, refused
from tests.support.ranked_packs import ranked_pack, texts, write_data


def test_share_says_what_it_wrote(shard: Cli, tmp_path: Path) -> None:
    answer = shard("share", ranked_pack(), "--layers", "0-1", "-o", tmp_path / "front")
    assert answer.code == 0 and answer.err == ""
    with PackReader.open(ranked_pack()) as whole, PackReader.open(tmp_path / "front") as part:
        name, pack_id = whole.manifest.name, whole.pack_id
        assert part.part is not None and part.part.pack_id == pack_id
        fields = {"parent": whole.content, "pack_id": pack_id, "first": 0, "last": 1}
    assert answer.out.startswith(f"{tmp_path / 'front'}: {name}, layers 0 to 1 of 3, ")
    assert f"a part of pack {pack_id}, written in " in answer.out
    document = shard(
        "share", tmp_path / "front", "--layers", "1", "-o", tmp_path / "one", "--json"
    ).json
    assert document["part"] == fields | {"first": 1}
    assert document["bytes"] == (tmp_path / "one").stat().st_size
    quiet = shard("share", ranked_pack(), "--layers", "2", "-o", tmp_path / "back", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    for name in ("front", "one", "back"):
        told = shard("verify", tmp_path / name).out
        assert f"\na part: layer{'s' * (name == 'front')} " in told and pack_id in told
        assert shard("verify", tmp_path / name, "--json").json["part"]["pack_id"] == pack_id
        assert (
            f"\n  a part: layer{'s' * (name == 'front')} " in shard("inspect", tmp_path / name).out
        )
        found = shard("inspect", tmp_path / name, "--json").json
        assert found["part"]["parent"] == fields["parent"]
        assert sum(found["bytes"].values()) == 2 * found["bytes"]["file"]
    assert shard("verify", ranked_pack(), "--json").json["part"] is None
    assert shard("inspect", ranked_pack(), "--json").json["part"] is None


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ("0-3,8", "'0-3,8' is not one layer or one range such as 0-3"),
        ("", "'' is not one layer"),
        ("-1", "'-1' is not one layer"),
        ("1-", "'1-' is not one layer"),
        ("\u0661", "is not one layer"),
        ("9" * 30, "is not one layer"),
        ("2-1", "'2-1' ends before it begins"),
    ],
)
def test_layers_that_are_none_are_errors_of_usage(
    layers: str, said: str, shard: Cli, tmp_path: Path
) -> None:
    answer = shard("share", ranked_pack(), "--layers", layers, "-o", tmp_path / "part")
    assert answer.code == 2 and said in answer.err
    assert not list(tmp_path.iterdir())


def test_layers_that_the_model_has_not_are_refused(shard: Cli, tmp_path: Path) -> None:
    answer = shard("share", ranked_pack(), "--layers", "1-7", "-o", tmp_path / "part")
    refused(answer, f"{ranked_pack()}: the model has layers 0 to 2, and not layers 1 to 7")


def test_commands_that_need_a_whole_pack_refuse_a_part(shard: Cli, tmp_path: Path) -> None:
    part, data = tmp_path / "part", tmp_path / "data.tsv"
    assert shard("share", ranked_pack(), "--layers", "0-1", "-o", part).code == 0
    write_data(data, ranked_pack(), texts(20, longest=3))
    for argv in (
        ("rank", part, "--data", data),
        ("evaluate", part, "--data", data, "--targets", "1s"),
        ("check", part, tmp_path, "--texts", data),
    ):
        refused(shard(*argv), f"{part}: is a part (layers 0 to 1) of pack ", "open the whole pack")
    refused(shard("upgrade", part, "-o", tmp_path / "new"), "of format 2 already")
