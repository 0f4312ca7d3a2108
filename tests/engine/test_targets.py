"""Targets: named ones of a file, and arguments laid over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sti.engine.targets import TargetSpec, find_config, load_config, resolve
from sti.errors import ConfigError, InputError

GOOD = """
[targets.voice]
latency = "150ms"
preload = "2MB"

[targets.sharp]
fidelity = 6

[targets.pinned]
plan = "plans/night.json"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "sti.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_named_targets_are_read_with_their_units(config: Path) -> None:
    voice = load_config(config).target("voice")
    assert voice == TargetSpec(latency_s=0.15, preload_bytes=2_000_000)


def test_a_plan_file_is_relative_to_the_configuration(config: Path) -> None:
    pinned = load_config(config).target("pinned")
    assert pinned == TargetSpec(plan=config.parent / "plans" / "night.json")


def test_explicit_arguments_win_over_the_target(config: Path) -> None:
    settings = resolve(config=config, target="voice", latency="1s")
    assert settings == TargetSpec(latency_s=1.0, preload_bytes=2_000_000)


def test_an_explicit_fidelity_replaces_the_plan_of_the_target(config: Path) -> None:
    settings = resolve(config=config, target="pinned", fidelity=3)
    assert (settings.fidelity, settings.plan) == (3, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"latency": "1s"}, TargetSpec(latency_s=1.0)),
        ({"preload": "1KB"}, TargetSpec(preload_bytes=1000)),
    ],
)
def test_an_explicit_target_replaces_the_plan_of_the_named_one(
    config: Path, given: dict[str, Any], expected: TargetSpec
) -> None:
    assert resolve(config=config, target="pinned", **given) == expected


@pytest.mark.parametrize("target", ["voice", "sharp", "pinned"])
def test_an_explicit_plan_replaces_all_of_the_target(config: Path, target: str) -> None:
    settings = resolve(config=config, target=target, plan="mine.json")
    assert settings == TargetSpec(plan=Path("mine.json"))


def test_without_arguments_nothing_is_asked_for() -> None:
    assert resolve() == TargetSpec()


def test_a_preload_of_zero_is_kept_apart_from_none() -> None:
    assert resolve(preload=0).preload_bytes == 0


@pytest.mark.parametrize(
    "given", [{"fidelity": 4}, {"latency": "1s"}, {"preload": "1KB"}, {"preload": 0}]
)
def test_a_plan_excludes_what_it_brings_itself(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(given))} and plan exclude.*its own target"):
        resolve(plan="x.json", **given)


def test_a_fidelity_may_have_a_latency_and_a_preload() -> None:
    settings = resolve(fidelity=4, latency="1s", preload="1KB")
    assert settings == TargetSpec(latency_s=1.0, preload_bytes=1000, fidelity=4)


@pytest.mark.parametrize("plan", [5, {}, True, b"x.json", ["x.json"]])
def test_a_plan_is_a_plan_or_the_name_of_a_file(plan: Any) -> None:
    with pytest.raises(InputError, match="plan must be a plan or the name of its file"):
        resolve(plan=plan)


@pytest.mark.parametrize("fidelity", [0, -1, True, 4.5, "4"])
def test_a_fidelity_is_a_number_of_bits(fidelity: object) -> None:
    with pytest.raises(InputError, match="fidelity must be"):
        resolve(fidelity=fidelity)  # type: ignore[arg-type]


def test_an_unknown_target_names_the_known_ones(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \[targets.vioce\].*pinned, sharp, voice"):
        resolve(config=config, target="vioce")
    with pytest.raises(ConfigError, match="vioce"):
        resolve(config=config, target="vioce", plan="x.json")


def test_a_configuration_without_a_target_name_says_which_there_are(config: Path) -> None:
    with pytest.raises(ConfigError, match="pinned, sharp, voice"):
        resolve(config=config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[targets", "not valid TOML"),
        ("[target.voice]\nlatency='1s'", "unknown table or key 'target'"),
        ("targets = 3", "targets must hold tables"),
        ("[targets]\nvoice = 3", "targets.voice must be a table"),
        ("[targets.voice]\nlatencey = '1s'", "unknown key 'latencey'; allowed: latency, preload"),
        ("[targets.voice]\nlatency = 150", "latency must be text with a unit"),
        ("[targets.voice]\nlatency = '150'", "no unit"),
        ("[targets.voice]\npreload = 'much'", "preload must be a size"),
        ("[targets.voice]\npreload = 1.5", "preload must be a size"),
        ("[targets.voice]\nfidelity = '4'", "fidelity must be"),
        ("[targets.voice]\nplan = 4", "plan must be the name of a file"),
        ("[targets.voice]\nfidelity = 4\nplan = 'x'", "fidelity and plan exclude"),
        ("[targets.voice]\nlatency = '1s'\nplan = 'x'", "latency and plan exclude"),
    ],
)
def test_a_bad_configuration_names_file_and_fault(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_fault_in_a_table_names_the_table(tmp_path: Path) -> None:
    path = write(tmp_path, "[targets.voice]\npreload = 'much'")
    with pytest.raises(ConfigError, match=r"\[targets\.voice\]"):
        load_config(path)


def test_a_configuration_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sti.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config(path)


@pytest.mark.parametrize("name", [".", "missing.toml"])
def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(tmp_path / name)


def test_the_working_directory_comes_before_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "home" / "sti" / "sti.toml"
    user.parent.mkdir(parents=True)
    user.write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert find_config() == user
    (tmp_path / "sti.toml").write_text("", encoding="utf-8")
    assert find_config() == Path("sti.toml")
    assert find_config("other.toml") == Path("other.toml")


def test_a_target_without_any_configuration_names_the_places_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"sti\.toml and .*sti/sti\.toml"):
        resolve(target="voice")
