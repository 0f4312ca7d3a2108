"""Targets: named ones of a file, and arguments laid over them."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from sti import Engine
from sti.engine.config import MOST_BYTES, load_config
from sti.engine.targets import TargetSpec, resolve
from sti.errors import ConfigError, InputError, StiError
from sti.model.workload import Workload
from sti.planning.plan import PlanRequest
from sti.planning.uniform import uniform_plan
from tests.support.packs import tiny_pack
from tests.support.synthetic import make_manifest, make_profile

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
    voice = TargetSpec.named("voice", config=config)
    assert voice == TargetSpec(latency="150ms", preload="2MB")
    assert (voice.latency_s, voice.preload_bytes) == (0.15, 2_000_000)


def test_a_plan_file_is_relative_to_the_configuration(config: Path) -> None:
    pinned = TargetSpec.named("pinned", config=config)
    assert pinned == TargetSpec(plan=config.parent / "plans" / "night.json")


def test_explicit_arguments_win_over_the_target(config: Path) -> None:
    found = resolve("voice", TargetSpec(latency="1s"), config=config)
    assert found == TargetSpec(latency="1s", preload="2MB")
    voice = TargetSpec.named("voice", config=config)
    assert voice.overridden(TargetSpec(latency="1s")) == found


def test_an_explicit_fidelity_replaces_the_plan_of_the_target(config: Path) -> None:
    found = resolve("pinned", TargetSpec(fidelity=3), config=config)
    assert (found.fidelity, found.plan) == (3, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"latency": "1s"}, TargetSpec(latency="1s")),
        ({"preload": "1KB"}, TargetSpec(preload="1KB")),
    ],
)
def test_an_explicit_target_replaces_the_plan_of_the_named_one(
    config: Path, given: dict[str, Any], expected: TargetSpec
) -> None:
    assert resolve("pinned", TargetSpec(**given), config=config) == expected


@pytest.mark.parametrize("target", ["voice", "sharp", "pinned"])
def test_an_explicit_plan_replaces_all_of_the_target(config: Path, target: str) -> None:
    found = resolve(target, TargetSpec(plan="mine.json"), config=config)
    assert found == TargetSpec(plan=Path("mine.json"))


def test_without_arguments_nothing_is_asked_for() -> None:
    assert resolve() == TargetSpec()


def test_a_preload_of_zero_is_kept_apart_from_none() -> None:
    zero = TargetSpec(preload="0B")
    assert zero.preload_bytes == TargetSpec(preload="0").preload_bytes == 0
    assert TargetSpec(preload="1KB").overridden(zero) == zero


@pytest.mark.parametrize(
    "given", [{"fidelity": 4}, {"latency": "1s"}, {"preload": "1KB"}, {"preload": "0B"}]
)
def test_a_plan_excludes_what_it_brings_itself(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(given))} and plan exclude.*its own target"):
        TargetSpec(plan="x.json", **given)


def test_a_fidelity_may_have_a_latency_and_a_preload() -> None:
    found = TargetSpec(fidelity=4, latency="1s", preload="1KB")
    assert (found.latency_s, found.preload_bytes, found.fidelity) == (1.0, 1000, 4)


@pytest.mark.parametrize("plan", [5, {}, True, b"x.json", ["x.json"]])
def test_a_plan_is_a_plan_or_the_name_of_a_file(plan: Any) -> None:
    with pytest.raises(InputError, match="plan must be a plan or the name of its file"):
        TargetSpec(plan=plan)


@pytest.mark.parametrize("fidelity", [0, -1, True, 4.5, "4"])
def test_a_fidelity_is_a_number_of_bits(fidelity: object) -> None:
    with pytest.raises(InputError, match="fidelity must be"):
        TargetSpec(fidelity=fidelity)  # type: ignore[arg-type]


@pytest.mark.parametrize("latency", ["30ms", "0.03s", timedelta(milliseconds=30)])
def test_a_latency_is_text_with_a_unit_or_a_timedelta(latency: str | timedelta) -> None:
    target = TargetSpec(latency=latency)
    assert target.latency_s == 0.03 and target.latency == "30ms"
    assert hash(target) == hash(TargetSpec(latency="30ms")) and target == TargetSpec(latency="30ms")


@pytest.mark.parametrize(
    ("latency", "remedy"),
    [
        (0.2, 'found 0.2: write "200ms" or timedelta(seconds=0.2)'),
        (3, 'found 3: write "3s" or timedelta(seconds=3)'),
        (-1.0, "found -1.0"),
        (float("nan"), "found nan"),
        (True, "found True"),
        (timedelta(0), "above zero; found datetime.timedelta(0)"),
        (b"1s", "found b'1s'"),
    ],
)
def test_a_bare_latency_is_refused_with_the_right_spelling(latency: Any, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        TargetSpec(latency=latency)
    said = str(caught.value)
    assert said.startswith('latency must be a time with a unit, such as "200ms", or a timedelta')
    assert said.endswith(remedy)


@pytest.mark.parametrize("preload", [4_000_000, "4000000"])
def test_a_bare_preload_is_refused_with_the_right_spelling(preload: Any) -> None:
    with pytest.raises(InputError, match=r'preload must be a size.*write "4000000B" or "4MB"'):
        TargetSpec(preload=preload)


def test_a_target_is_shown_as_it_would_be_written() -> None:
    target = TargetSpec(latency="150ms", preload="2MB", fidelity=4)
    assert repr(target) == "TargetSpec(latency='150ms', preload='2MB', fidelity=4)"
    assert repr(TargetSpec()) == "TargetSpec()"
    assert repr(TargetSpec(plan="night.json")) == "TargetSpec(plan='night.json')"


def test_a_target_with_a_plan_is_shown_in_one_line_and_can_be_hashed() -> None:
    manifest = make_manifest(Random(0))
    plan = uniform_plan(
        PlanRequest(manifest, "0123", Workload(1, 8)), bits=4, profile=make_profile()
    )
    target = TargetSpec(plan=plan)
    assert repr(target) == "TargetSpec(plan=<2 x 3 of pack 0123>)"
    assert {target: 1}[TargetSpec(plan=plan)] == 1


@pytest.mark.parametrize("target", [3, 0.2, {"latency": "1s"}])
def test_a_target_is_a_target_or_a_name(target: Any) -> None:
    with pytest.raises(InputError, match="target must be a TargetSpec or a name"):
        resolve(target)


def test_a_configuration_is_only_for_names(config: Path) -> None:
    with pytest.raises(ConfigError, match="say which target to use, by its name"):
        resolve(TargetSpec(latency="1s"), config=config)


def test_an_unknown_target_names_the_known_ones(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \[targets.vioce\].*pinned, sharp, voice"):
        resolve("vioce", config=config)
    with pytest.raises(ConfigError, match="vioce"):
        resolve("vioce", TargetSpec(plan="x.json"), config=config)


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
        ("[targets.voice]\nlatencey = '1s'", "'latencey'; allowed: latency, memory, preload"),
        ("[targets.voice]\nlatency = 150", 'no unit; write "150ms" or "150s"'),
        ("[targets.voice]\nlatency = true", "latency must be a time"),
        ("[targets.voice]\npreload = 4000000", 'no unit; write "4000000B" or "4MB"'),
        ("[targets.voice]\npreload = '4000000'", 'no unit; write "4000000B" or "4MB"'),
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
        TargetSpec.named("voice", config=path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_fault_in_a_table_names_the_table(tmp_path: Path) -> None:
    path = write(tmp_path, "[targets.voice]\npreload = 'much'")
    with pytest.raises(ConfigError, match=r"\[targets\.voice\]"):
        TargetSpec.named("voice", config=path)


def test_a_configuration_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sti.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        TargetSpec.named("voice", config=path)


@pytest.mark.parametrize("name", [".", "missing.toml"])
def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        TargetSpec.named("voice", config=tmp_path / name)


def test_the_working_directory_comes_before_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = tmp_path / "home" / "sti" / "sti.toml"
    user.parent.mkdir(parents=True)
    user.write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert load_config().path == user
    (tmp_path / "sti.toml").mkdir()
    assert load_config().path == user
    (tmp_path / "sti.toml").rmdir()
    (tmp_path / "sti.toml").write_text("", encoding="utf-8")
    assert load_config().path == Path("sti.toml")
    (tmp_path / "other.toml").write_text("", encoding="utf-8")
    assert load_config("other.toml").path == Path("other.toml")


def test_a_target_without_any_configuration_names_the_places_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"sti\.toml and .*sti/sti\.toml"):
        resolve("voice")


def test_a_configuration_that_someone_else_left_there_has_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sti.toml").write_text("[targets.a]\nlatency = '1s'\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    owner = (tmp_path / "sti.toml").stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr("sti.engine.config.SYSTEM", owner + 2)
    with pytest.raises(ConfigError, match=r"sti\.toml: belongs to someone else"):
        load_config()
    assert set(load_config("sti.toml").targets) == {"a"}


def test_a_configuration_that_others_may_write_has_to_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sti.toml").write_text("[targets.a]\nlatency = '1s'\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for mode in (0o666, 0o620):
        (tmp_path / "sti.toml").chmod(mode)
        with pytest.raises(ConfigError, match=r"sti\.toml: others may write to it"):
            load_config()
        assert set(load_config("sti.toml").targets) == {"a"}
    (tmp_path / "sti.toml").chmod(0o644)
    assert set(load_config().targets) == {"a"}


@pytest.mark.parametrize(
    "text",
    [
        b"#" * (MOST_BYTES + 1),
        b"a = " + b"[\n" * 9000,
        b"a = " + b"1" * 8000,
        b"\xff",
        b"a." * 30_000 + b"a = 1",
        b"[" + b"a." * 30_000 + b"a]",
        *(b"[targets.x]\n%s = 0x" % key + b"f" * 8000 for key in (b"fidelity", b"latency")),
        b"[targets.x]\nfloor = [0x" + b"f" * 8000 + b"]",
    ],
)
def test_a_configuration_that_is_none_is_refused_in_time(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sti.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=f"^{path}: "):
        load_config(path)


def test_a_plan_or_configuration_that_is_a_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="no regular file"):
        load_config(Path("/dev/zero"))


def test_a_plan_that_no_file_can_be_called_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sti.toml").write_text('[targets.x]\nplan = "a\\u0000b"\n', encoding="utf-8")
    target = TargetSpec.named("x", config=tmp_path / "sti.toml")
    with pytest.raises(StiError, match="no file can have this name"):
        Engine.open(tiny_pack("classification"), target=target).close()
