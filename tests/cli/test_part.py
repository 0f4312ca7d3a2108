"""What ``sti`` says of a part of a pack."""

from __future__ import annotations

from pathlib import Path

import pytest

from shard_tools.packing.share import share
from tests.support.commands import Cli, refused
from tests.support.ranked_packs import ranked_pack


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last layer of a pack."""
    path = tmp_path_factory.mktemp("part") / "back.sti.safetensors"
    share(ranked_pack(), path, 2, 2)
    return path


@pytest.mark.parametrize(
    "argv",
    [
        ("run", "{}", "a text"),
        ("plan", "{}", "--latency", "1s"),
        ("plan", "{}", "--latency", "1s", "--device", "raspberry-pi-4"),
        ("plan", "{}", "--tokens", "16"),
        ("bench", "{}"),
        ("bench", "{}", "--against", "{}"),
        ("calibrate", "{}"),
        ("report", "{}"),
    ],
    ids=" ".join,
)
def test_commands_that_need_a_whole_pack_refuse_a_part(
    argv: tuple[str, ...], part: Path, cli: Cli
) -> None:
    answer = cli(*(item.format(part) for item in argv))
    refused(answer, f"{part}: is a part (layer 2) of pack ", "open the whole pack", "`sti worker`")


def test_doctor_tells_that_it_is_one(part: Path, cli: Cli) -> None:
    assert "\na part: layer 2, of pack " in cli("doctor", part).out
    found = cli("doctor", part, "--json").json["pack"]
    assert (found["part"]["first"], found["part"]["last"]) == (2, 2)
    assert cli("doctor", ranked_pack(), "--json").json["pack"]["part"] is None
