"""Faults are tried and summed up. Nothing here is timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import devices_faults
from benchmarks.devices_faults import Setting, Trial, measure, summarize
from benchmarks.devices_faults_lab import FROZEN, KILLED, UNPLUGGED, Pack, Times
from benchmarks.network.namespaces import NoNetwork
from tests.support.packs import PROFILE, tiny_pack

SOUND = Trial(KILLED, "a", 0.5, 0.01, 0.02, 0.3, 0.1, True, 4, 0, 0.5)


def verdicts(*trials: Trial) -> dict[object, object]:
    return {name: verdict for name, _, _, verdict in summarize(trials).limits}


def test_sound_trials_meet_every_limit() -> None:
    found = verdicts(SOUND, SOUND._replace(kind=FROZEN, noticed_s=0.9))
    assert set(found.values()) == {"met", "-"}
    assert found["killed: noticed, of 1"] == "met"
    assert "unplugged: noticed, of 0" not in found


@pytest.mark.parametrize(
    ("changed", "short"),
    [
        ({"noticed_s": 0.2}, "killed: noticed after s"),
        ({"noticed_s": None}, "killed: noticed, of 1"),
        ({"wrong": 1}, "wrong answers, of 4"),
        ({"back_s": None}, "killed: used again, of 1"),
        ({"kind": UNPLUGGED, "noticed_s": 1.1}, "unplugged: noticed after s"),
    ],
)
def test_a_trial_that_is_not_is_short_of_one(changed: dict[str, object], short: str) -> None:
    trial = SOUND._replace(**changed)  # type: ignore[arg-type]
    assert verdicts(trial)[short] == "SHORT"


def test_devices_of_an_emulated_network_are_broken_and_mended(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(PROFILE.to_json()), encoding="utf-8")
    setting = Setting(Pack.with_profile(tiny_pack(), profile), 2, 0, 200.0, Times(1.0, 20.0))
    try:
        trials = list(measure(setting))
    except NoNetwork as error:
        pytest.skip(str(error))
    assert len(trials) == 2
    for trial in trials:
        assert trial.noticed_s is not None and trial.back_s is not None and not trial.wrong


def test_packs_that_are_none_are_errors_of_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        devices_faults.main([str(tmp_path / "none")])
    assert "none" in capsys.readouterr().err
