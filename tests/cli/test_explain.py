"""``sti plan --explain``: equal to planning for other targets, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sti.engine.speeds import Speeds
from sti.planning.nearby_targets import (
    LESS_LATENCY,
    MORE_LATENCY,
    MORE_MEMORY,
    MORE_PRELOAD,
)
from sti.planning.plan import Plan
from sti.units import exact_size, exact_time
from tests.support.commands import Cli, refused
from tests.support.paths import INTENTS, MINILM

BOARD = ("--device", "paper-board")
HERE = ("--tokens", 16)


def options_of(target: dict[str, Any], *, quantile: str | None = None) -> list[str]:
    """The options that ask for a target of a JSON document."""
    found = []
    if target["latency_s"] is not None:
        found += ["--latency", exact_time(target["latency_s"])]
    if target["preload_bytes"]:
        found += ["--preload", exact_size(target["preload_bytes"])]
    return found if quantile is None else [*found, "--quantile", quantile]


def check_targets(cli: Cli, pack: Path, where: Sequence[object], *asked: str) -> list[Any]:
    """Compare what is said of other targets with plans for them; returns it."""
    document = cli("plan", pack, *where, *asked, "--explain", "--json").json
    own, outcomes = document["predicted"], document["explanation"]["targets"]
    quantile = asked[asked.index("--quantile") + 1] if "--quantile" in asked else None
    for outcome in outcomes:
        options = options_of(outcome["target"], quantile=quantile)
        answer = cli("plan", pack, *where, *options, "--json")
        if answer.code:
            assert outcome["plan"] is None
            assert outcome["error"] == answer.error
            continue
        found, plan = outcome["plan"], answer.json
        assert outcome["error"] is None
        assert plan["target"] == outcome["target"]
        assert (found["depth"], found["width"]) == (plan["depth"], plan["width"])
        for name in ("total_s", "bytes_read", "loss", "quality"):
            assert found[name] == plan["predicted"][name], name
        for name in ("total_s", "bytes_read", "loss"):
            assert found["change"][name] == plan["predicted"][name] - own[name]
        if own["quality"] is None:
            assert found["change"]["metric"] is None
        else:
            change = plan["predicted"]["quality"]["value"] - own["quality"]["value"]
            assert found["change"]["metric"] == change
    assert document["explanation"]["no_targets"] is None
    return list(outcomes)


@pytest.mark.parametrize(
    ("pack", "where", "asked"),
    [
        (INTENTS, BOARD, ("--latency", "60ms")),
        (INTENTS, BOARD, ("--latency", "40ms", "--preload", "500KB", "--quantile", "90%")),
        (INTENTS, BOARD, ()),
        (MINILM, BOARD, ("--latency", "100ms")),
        (MINILM, BOARD, ("--preload", "1MB")),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else value.stem,
)
def test_other_targets_of_a_device_are_planned_for(
    cli: Cli, pack: Path, where: tuple[str, ...], asked: tuple[str, ...]
) -> None:
    names = [outcome["name"] for outcome in check_targets(cli, pack, where, *asked)]
    more = [MORE_LATENCY] if "--latency" in asked else []
    assert names == [*more, MORE_PRELOAD, LESS_LATENCY]


@pytest.mark.parametrize(
    ("pack", "where", "room"),
    [(INTENTS, HERE, 0.3), (INTENTS, ("--batch", 3), 1.0), (MINILM, HERE, 0.9), (MINILM, (), 1.5)],
)
def test_other_targets_of_this_machine_are_planned_for(
    cli: Cli, pack: Path, where: tuple[object, ...], room: float
) -> None:
    check_targets(cli, pack, where)
    whole_s = cli("plan", pack, *where, "--json").json["predicted"]["total_s"]
    for others in ((), ("--preload", "700KB"), ("--quantile", "60%"), ("--quantile", "99.9%")):
        asked = ("--latency", exact_time(room * 2.0 * whole_s), *others)
        if cli("plan", pack, *where, *asked, "--json").code == 0:
            check_targets(cli, pack, where, *asked)


def test_a_target_that_cannot_be_met_says_what_could(cli: Cli) -> None:
    least = cli("plan", INTENTS, *BOARD, "--latency", "1us", "--json").error["needed"]
    asked = ("--latency", exact_time(1.05 * least))
    outcome = check_targets(cli, INTENTS, BOARD, *asked)[-1]
    assert (outcome["name"], outcome["plan"]) == (LESS_LATENCY, None)
    assert outcome["error"]["limit"] == "latency"
    assert outcome["error"]["needed"] == pytest.approx(least)
    shown = cli("plan", INTENTS, *BOARD, *asked, "--explain").out
    assert "refused, the least latency is" in shown


def test_a_floor_that_is_missed_says_so(cli: Cli) -> None:
    whole_s = cli("plan", INTENTS, *HERE, "--json").json["predicted"]["total_s"]
    for share in (2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1):
        asked = ("--latency", exact_time(share * whole_s), "--floor", "98%")
        answer = cli("plan", INTENTS, *HERE, *asked, "--explain")
        if answer.code:
            refused(answer, "floor" if "floor" in answer.err else "latency")
            return
    pytest.fail("every latency was met")


@pytest.mark.parametrize("where", [BOARD, HERE], ids=["board", "here"])
@pytest.mark.parametrize("how", ["fidelity", "plan"])
def test_what_was_given_is_compared_with_no_other_target(
    cli: Cli, tmp_path: Path, where: tuple[object, ...], how: str
) -> None:
    given: tuple[object, ...] = ("--fidelity", 3)
    if how == "plan":
        saved = cli("plan", INTENTS, *where, "--fidelity", 3, "-o", tmp_path / "plan.json")
        assert saved.code == 0
        given = ("--plan", tmp_path / "plan.json")
    found = cli("plan", INTENTS, *where, *given, "--explain", "--json").json["explanation"]
    assert found["targets"] == []
    assert "given" in found["no_targets"]
    assert {block["reason"] for block in found["blocks"]} == {"asked"}
    shown = cli("plan", INTENTS, *where, *given, "--explain").out
    assert found["no_targets"] in shown
    assert "asked for" in shown


@pytest.mark.parametrize("where", [BOARD, HERE], ids=["board", "here"])
def test_the_explanation_is_of_the_plan_that_is_shown(
    cli: Cli, tmp_path: Path, where: tuple[object, ...]
) -> None:
    saved = tmp_path / "plan.json"
    options = (*where, "--latency", "80ms")
    plain = cli("plan", INTENTS, *options, "--json").json
    document = cli("plan", INTENTS, *options, "--explain", "--json", "-o", saved).json
    explanation = document.pop("explanation")
    assert document == plain
    assert Plan.from_text(saved.read_text(encoding="utf-8"), where="test") == Plan.from_json(
        plain, where="test"
    )
    blocks = [(block["layer"], block["kind"]) for block in explanation["blocks"]]
    assert blocks == list(dict.fromkeys((s["layer"], s["kind"]) for s in plain["steps"]))
    limits, predicted = explanation["limits"], plain["predicted"]
    assert limits["total_s"] == pytest.approx(predicted["total_s"])
    waited_s = sum(wait["wait_s"] for wait in limits["waits"])
    assert waited_s == pytest.approx(predicted["stall_s"], abs=1e-9)
    text = cli("plan", INTENTS, *options, "--explain").out
    assert text.startswith(cli("plan", INTENTS, *options).out)


@pytest.mark.parametrize(
    ("pack", "options"),
    [
        (INTENTS, (*BOARD, "--latency", "60ms")),
        (INTENTS, HERE),
        (MINILM, (*BOARD, "--latency", "100ms", "--preload", "1MB")),
        (MINILM, ("--fidelity", 2)),
        (MINILM, ()),
    ],
)
def test_explanations_fit_a_terminal(cli: Cli, pack: Path, options: tuple[object, ...]) -> None:
    answer = cli("plan", pack, *options, "--explain")
    assert answer.code == 0, answer.err
    lines = answer.out[answer.out.index("One plane more") :].splitlines()
    assert max(map(len, lines)) <= 80
    for part in ("One plane less", "limited by", "caller", "Other targets"):
        assert any(part in line for line in lines)


def test_one_plan_for_all_lengths_names_the_one_it_was_made_for(cli: Cli) -> None:
    board = cli("plan", MINILM, *BOARD, "--explain", "--json").json
    assert board["explanation"]["made_for"] == board["workload"]
    here = cli("plan", MINILM, "--explain", "--json").json
    assert here["workload"]["tokens"] == 32
    assert here["explanation"]["made_for"] == {"batch": 1, "tokens": 128}
    own = cli("plan", MINILM, "--tokens", 40, "--explain", "--json").json
    assert own["explanation"]["made_for"] == own["workload"] == {"batch": 1, "tokens": 40}


def test_only_a_plan_is_explained(cli: Cli, tmp_path: Path) -> None:
    refused(cli("plan", tmp_path / "none", "--explain"), "none")
    assert cli("run", INTENTS, "a text", "--explain").code == 2
    refused(cli("plan", INTENTS, *BOARD, "--latency", "1us", "--explain"), "latency", "ms")


def test_a_plan_promises_what_runs_have_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Speeds, "spread", lambda *_: 3.0)
    options = (INTENTS, "--tokens", 16, "--latency", "10s")
    predicted = cli("plan", *options, "--json").json["predicted"]
    assert predicted["total_s"] > 0.0
    line = next(line for line in cli("plan", *options).out.splitlines() if "of the runs" in line)
    number, unit = line.split()[-2:]
    shown_s = float(number) * {"s": 1.0, "ms": 1e-3, "us": 1e-6}[unit]
    assert shown_s == pytest.approx(3.0 * predicted["total_s"], rel=0.01)


def test_a_megabyte_more_of_a_budget_is_planned_for(cli: Cli) -> None:
    for pack in (INTENTS, MINILM):
        whole_s = cli("plan", pack, *HERE, "--json").json["predicted"]["total_s"]
        asked = ("--latency", exact_time(4.0 * whole_s))
        cli("plan", pack, *HERE, *asked, "--memory", "16MB", "--json")  # what that loads is loaded
        document = cli("plan", pack, *HERE, *asked, "--memory", "16MB", "--explain", "--json").json
        outcomes = {item["name"]: item for item in document["explanation"]["targets"]}
        assert MORE_PRELOAD not in outcomes
        found = outcomes[MORE_MEMORY]
        assert found["target"]["memory_bytes"] == 17 * 10**6
        other = cli("plan", pack, *HERE, *asked, "--memory", "17MB", "--json").json["predicted"]
        assert (found["plan"]["loss"], found["plan"]["bytes_read"]) == (
            other["loss"],
            other["bytes_read"],
        )
