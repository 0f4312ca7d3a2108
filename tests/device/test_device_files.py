"""Devices that are not at hand: their files, how a board's times scale, and `sti plan --device`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

import sti.device.device_files
from sti.calibration.cache import Cache
from sti.cli.main import main
from sti.device.device_files import load_device, shipped_devices
from sti.device.lanes import COMPUTE, STORAGE
from sti.device.profile import DeviceProfile
from sti.errors import ProfileError
from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan, PlanRequest
from sti.planning.prediction import predict
from sti.planning.uniform import uniform_plan
from tests.support.edited_packs import edited
from tests.support.packs import PROFILE
from tests.support.synthetic import BERT_BASE, LADDER, MINILM, Shape, make_manifest

BOARD_FILE = Path(sti.device.device_files.__file__).parent / "devices" / "paper-board.json"
BOARD: dict[str, Any] = json.loads(BOARD_FILE.read_text(encoding="utf-8"))
SENTENCE = Workload(1, 128)


def real(shape: Shape, *, hidden: int) -> Manifest:
    """A manifest of a real model's shape, with attention that mixes tokens."""
    manifest = make_manifest(Random(1), ladder=LADDER, **shape)
    kinds = tuple(
        kind._replace(input_kind="sequence" if kind.name == "attention" else "tokens")
        for kind in manifest.kinds
    )
    words = manifest.embeddings._replace(hidden=hidden, row_bytes=hidden // 2 + hidden // 16)
    dims = manifest.dimensions._replace(hidden=hidden)
    return manifest._replace(dimensions=dims, kinds=kinds, embeddings=words)


BERT = real(BERT_BASE, hidden=768)
SMALL = real(MINILM, hidden=384)


def layer_s(profile: DeviceProfile, width: int, work: Workload = SENTENCE) -> float:
    """Seconds of one layer on the compute lane."""
    attention, ffn, connect = (
        profile.compute_s(name, work, width) for name in ("attention", "ffn", "connect")
    )
    return attention + ffn + 2 * connect


def test_the_papers_board_computes_a_layer_of_bert_base_as_the_paper_says() -> None:
    profile = load_device("paper-board", BERT)
    for width, seconds in BOARD["layer"]["compute_s"].items():
        assert layer_s(profile, int(width)) == pytest.approx(seconds, rel=0.05)
    assert layer_s(profile, 12) == pytest.approx(0.095, rel=0.013)
    steps = [layer_s(profile, width + 1) - layer_s(profile, width) for width in range(1, 12)]
    assert steps == pytest.approx([steps[0]] * 11)


def test_the_papers_board_reads_and_decodes_as_the_paper_says() -> None:
    profile = load_device("paper-board", BERT)
    assert profile.storage.read_s(1, 7_077_888 * 4) == pytest.approx(0.33931, rel=1e-6)
    assert profile.storage.row_s == pytest.approx(BERT.embeddings.row_bytes / 83.44e6, rel=1e-3)
    for bits in LADDER:
        shard_s = profile.decode.shard_s + 589_824 * profile.decode.weight_s[bits]
        assert shard_s == pytest.approx(0.002)
    assert set(profile.runs) == {"sequential", "pipelined", "shared"}
    for run in profile.runs.values():
        assert (run.jitter, run.step_s, run.fixed_s) == (1.0, 0.0, 0.0)
        assert set(run.contention.values()) == {1.0}
    assert "simulated" in profile.device


def test_compute_scales_by_multiply_adds() -> None:
    """MiniLM's layer has half the width: a quarter of the weights, half the mixing of tokens."""
    base, small = load_device("paper-board", BERT), load_device("paper-board", SMALL)
    weights, tokens = 7_077_888, 128
    mixing = 2 * tokens**2 * 768
    slice_s = layer_s(base, 12) - layer_s(base, 11)
    offset_s = layer_s(base, 12) - 12 * slice_s
    share = (weights / 4 * tokens + mixing / 2) / (weights * tokens + mixing)
    assert layer_s(small, 12) == pytest.approx(offset_s / 4 + 12 * slice_s * share)
    both = layer_s(small, 12, Workload(2, 128))
    assert both == pytest.approx(2 * layer_s(small, 12))
    longer = 12 * slice_s * (weights * 256 + 4 * mixing) / (weights * tokens + mixing)
    assert layer_s(base, 12, Workload(1, 256)) == pytest.approx(2 * offset_s + longer)


def test_narrower_slices_take_the_same_time_a_layer() -> None:
    shape = Shape(layers=12, slices=24, attention_weights=98304, ffn_weights=196608)
    fine, coarse = real(shape, hidden=768), load_device("paper-board", BERT)
    assert layer_s(load_device("paper-board", fine), 24) == pytest.approx(layer_s(coarse, 12))


def test_a_plan_for_a_board_can_be_simulated() -> None:
    profile = load_device("paper-board", BERT)
    plan = uniform_plan(PlanRequest(BERT, "0", SENTENCE), bits=2, profile=profile)
    found = predict(BERT, profile, plan)
    assert found.busy_s[COMPUTE] == pytest.approx(12 * layer_s(profile, 12))
    rows_s = 128 * profile.storage.row_s
    assert found.busy_s[STORAGE] == pytest.approx(rows_s + found.bytes_read / 83438600)


def test_a_device_that_ships_goes_by_its_name(tmp_path: Path) -> None:
    assert "paper-board" in shipped_devices()
    for path in (BOARD_FILE, str(BOARD_FILE)):
        assert load_device(path, BERT) == load_device("paper-board", BERT)
    for name in shipped_devices():
        assert all(run.jitter >= 1.0 for run in load_device(name, BERT).runs.values())
    with pytest.raises(ProfileError, match=r"^no-board: no such device file.*paper-board"):
        load_device("no-board", BERT)
    with pytest.raises(ProfileError, match="cannot read the device"):
        load_device(tmp_path, BERT)


def test_a_profile_is_read_however_it_was_written(tmp_path: Path) -> None:
    cached = Cache(tmp_path / "cache").store_profile({"machine": "x"}, PROFILE)
    assert cached is not None
    other = replace(PROFILE, threads=2)
    printed = {"threads": 1, "profiles": {"1": PROFILE.to_json(), "2": other.to_json()}}
    (tmp_path / "one.json").write_text(json.dumps(PROFILE.to_json()), encoding="utf-8")
    (tmp_path / "all.json").write_text(json.dumps(printed), encoding="utf-8")
    for path in (cached, tmp_path / "one.json", tmp_path / "all.json"):
        assert load_device(path, BERT) == PROFILE


def changed(place: str, value: object) -> str:
    body: Any = json.loads(json.dumps(BOARD))
    *way, last = place.split(".")
    inner = body
    for key in way:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(body)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("board", 2),
        ("decoders", 2),
        ("board", "1"),
        ("device", ...),
        ("threads", 0),
        ("storage", 83.4),
        ("storage.bytes_per_s", 0),
        ("storage.request_s", ...),
        ("layer", None),
        ("layer.hidden", 0),
        ("layer.slices", "12"),
        ("layer.slices", 11),
        ("layer.shard_weights", ...),
        ("layer.tokens", 0),
        ("layer.decode_s", -0.002),
        ("layer.compute_s", {}),
        ("layer.compute_s", [0.035]),
        ("layer.compute_s", {"wide": 0.1}),
        ("layer.compute_s", {"0": 0.1}),
        ("layer.compute_s", {"²": 0.1}),
        ("layer.compute_s", {"9" * 5000: 0.1}),
        ("layer.compute_s.12", 0.0),
        ("layer.compute_s.12", "95ms"),
        ("layer.compute_s.12", 1e60),
        ("layer.hiden", 768),
        ("threads", 10**6),
        ("contention", 0.9),
        ("jitter", ...),
    ],
)
def test_a_malformed_board_is_refused_with_its_file_and_field(
    tmp_path: Path, place: str, value: object
) -> None:
    path = tmp_path / "board.json"
    path.write_text(changed(place, value), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        load_device(path, BERT)
    assert str(caught.value).startswith(f"{path}: ")
    field = place.removesuffix(".12").rpartition(".")[2]
    assert field in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "invalid JSON"),
        ("{", "invalid JSON"),
        ("[" * 100_000, "invalid JSON"),
        ("[1]", "expected an object"),
        ("{}", "neither a board nor"),
        ('{"cache": "here", "profiles": []}', "sti calibrate PACK --json"),
        ('{"profile": 7}', "version 7"),
        ('{"profile": 5}', "lanes: expected an object"),
        ('{"threads": 2, "profiles": {"1": {"profile": 1}}}', "profiles: 2"),
        ('{"value": 3}', "value: expected an object"),
    ],
)
def test_what_is_no_device_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "device.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ProfileError, match=said) as caught:
        load_device(path, BERT)
    assert str(path) in str(caught.value)


def test_text_that_is_not_utf_8_is_no_device(tmp_path: Path) -> None:
    (tmp_path / "device").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ProfileError, match="not a device file"):
        load_device(tmp_path / "device", BERT)


# ---- the command line

Cli = Callable[..., tuple[int, str, str]]
"""Exit code, standard output, standard error."""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    def measuring(*_: object, **__: object) -> None:
        raise AssertionError("this machine was measured")

    monkeypatch.setattr("sti.engine.machine.load_or_measure", measuring)

    def call(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(item) for item in argv])
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def graded(pack_for: Callable[[Any], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier that knows its accuracy."""

    def change(manifest: Manifest) -> Manifest:
        top = sum(sum(plane.gains) for g in manifest.groups for plane in g.planes[1:])
        quality = Quality("accuracy", 400, 0.004, (0.0, top), (0.96, 0.56))
        return manifest._replace(quality=quality)

    path = tmp_path_factory.mktemp("graded") / "pack"
    return edited(pack_for("classification"), path, change)


def test_a_plan_can_be_made_for_a_device_without_running_anything(
    cli: Cli, tiny_pack: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "plan.json"
    code, out, err = cli("plan", tiny_pack, "--device", "paper-board", "--output", saved)
    assert (code, err) == (0, f"saved to {saved}; `--plan {saved}` runs it\n")
    assert "device: paper-board" in out and "limited by quality" in out
    plan = Plan.from_text(saved.read_text(encoding="utf-8"), where="saved")
    with PackReader.open(tiny_pack) as reader:
        profile = load_device("paper-board", reader.manifest)
        assert plan.predicted == predict(reader.manifest, profile, plan)
        assert plan.pack == reader.pack_id
    assert cli("run", tiny_pack, "the dog", "--plan", saved, "--json")[0] == 0


def test_targets_fidelities_and_plans_are_followed_for_a_device(
    cli: Cli, tiny_pack: Path, tmp_path: Path
) -> None:
    device = ("plan", tiny_pack, "--device", "paper-board", "--json")
    low, high = (
        json.loads(cli(*device, "--fidelity", bits)[1])["predicted"]["total_s"] for bits in (2, 8)
    )
    latency = f"{500 * (low + high)}ms"
    code, out, _ = cli(*device, "--latency", latency, "--tokens", 20)
    plan = Plan.from_json(json.loads(out), where="out")
    assert code == 0
    assert plan.workload == Workload(1, 24)
    assert plan.predicted is not None and plan.target.latency_s is not None
    assert plan.predicted.total_s <= plan.target.latency_s
    (tmp_path / "plan.json").write_text(out, encoding="utf-8")
    slow = json.loads(changed("storage.bytes_per_s", 1e6))
    (tmp_path / "slow.json").write_text(json.dumps(slow), encoding="utf-8")
    pinned = ("plan", tiny_pack, "--device", tmp_path / "slow.json", "--json")
    again = Plan.from_json(json.loads(cli(*pinned, "--plan", tmp_path / "plan.json")[1]), where="")
    assert again.steps == plan.steps
    assert again.predicted is not None and again.predicted.total_s > plan.predicted.total_s


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--device", "nowhere"], "no such device file"),
        (["--device", "paper-board", "--threads", "2"], "--threads is for this machine"),
        (["--device", "paper-board", "--latency", "1us"], "cannot be met"),
        (["--device", "paper-board", "--latency", "1us", "--fidelity", "8"], "8 bits throughout"),
        (["--device", "paper-board", "--fidelity", "5"], "5 bits is not in the pack"),
        (["--device", "paper-board", "--plan", "nowhere.json"], "cannot read the plan"),
    ],
)
def test_what_cannot_be_planned_for_a_device_is_refused_in_one_line(
    cli: Cli, tiny_pack: Path, options: list[str], said: str
) -> None:
    code, out, err = cli("plan", tiny_pack, *options)
    assert (code, out) == (2, "")
    assert err.startswith("sti plan: ") and err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("command", ["run", "bench"])
@pytest.mark.parametrize("device", [["--device", "paper-board"], ["--device"]])
def test_running_as_another_device_is_refused(
    cli: Cli, tiny_pack: Path, command: str, device: list[str]
) -> None:
    code, out, err = cli(command, tiny_pack, *device)
    assert (code, out) == (2, "")
    assert "--device works with `sti plan` only" in err
    assert "--device " not in cli(command, "--help")[1].replace("\n", " ")


def test_a_plan_tells_the_accuracy_to_expect_and_what_more_time_would_gain(
    cli: Cli, graded: Path
) -> None:
    device = ("plan", graded, "--device", "paper-board")
    code, out, _ = cli(*device)
    assert code == 0
    assert "expected accuracy 96.0 % (95 times in 100 between 93.9 % and 98.1 %)" in out
    assert "the same as the full model's 96.0 %" in out and "with more time" not in out
    low = json.loads(cli(*device, "--fidelity", 2, "--json")[1])["predicted"]
    assert low["quality"]["value"] == pytest.approx(0.56)
    shown = cli(*device, "--fidelity", 2)[1]
    assert "expected accuracy 56.0 %" in shown
    assert "40.0 points below the full model's 96.0 %" in shown and "with more time" not in shown
    latency = f"{low['total_s'] * 1001}ms"
    out = cli(*device, "--latency", latency)[1]
    assert "points below the full model's 96.0 %\nwith more time: " in out


def test_a_pack_that_was_not_graded_tells_no_accuracy(cli: Cli, tiny_pack: Path) -> None:
    device = ("plan", tiny_pack, "--device", "paper-board")
    assert "expected accuracy" not in cli(*device)[1]
    assert json.loads(cli(*device, "--json")[1])["predicted"]["quality"] is None
