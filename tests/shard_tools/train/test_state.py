"""The state a run continues from, its log, and its scores."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from shard_tools.train.data import Examples
from shard_tools.train.optimizing import NotFiniteError, Optimizer
from shard_tools.train.scoring import answers, metric
from shard_tools.train.state import Log, Stage, State, load_state, save_state
from shard_tools.train.state_file import pack_values, read_values
from sti.errors import InputError, StorageError
from tests.support.checkpoints import write_checkpoint
from tests.support.training import examples, opened, sentences, tokens, whole

STATE = State(
    "elastic", 7, {2: (0, 1), 1: (1,)}, torch.ones(3, 2), {"a": torch.zeros(2)}, {"b": [1.0]}
)


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    save_state(path, "mine", STATE)
    save_state(path, "mine", replace(STATE, step=8))
    found = load_state(path, "mine")
    assert found is not None
    assert (found.stage, found.step, found.depths) == ("elastic", 8, STATE.depths)
    assert bool((found.teacher == STATE.teacher).all())
    assert found.optimizer == STATE.optimizer
    assert [item.name for item in tmp_path.iterdir()] == ["state.bin"]


def test_where_there_is_no_state_there_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state.bin", "mine") is None


def test_the_state_of_another_run_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    save_state(path, "mine", STATE)
    with pytest.raises(InputError, match="belongs to a run with other data or options"):
        load_state(path, "yours")
    assert load_state(path, "mine") is not None


def test_what_is_no_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    save_state(path, "mine", STATE)
    whole_file = path.read_bytes()
    for content in (b"", b"no state", whole_file[:-20], whole_file[: len(whole_file) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no training state; remove it to start again"):
            load_state(path, "mine")
    for place in range(0, len(whole_file), 7):
        path.write_bytes(whole_file[:place] + b"\xff" + whole_file[place + 1 :])
        with pytest.raises(InputError, match="is no training state"):
            load_state(path, "mine")
    for values in ({"step": 3}, {"key": "mine"}, {"key": "mine", "step": 3, "more": 1}):
        with path.open("wb") as stream:
            pack_values(values).write(stream)
        with pytest.raises(InputError, match="is no training state"):
            load_state(path, "mine")


@pytest.mark.parametrize("inner", ["[]," * (1 << 20), "[" * 99 + "]" * 99 + ","])
def test_a_header_of_too_much_is_refused_unparsed(tmp_path: Path, inner: str) -> None:
    path = tmp_path / "state.bin"
    text = f'{{"values": {{"map": []}}, "tensors": [], "more": [{inner}0]}}'.encode()
    raw = b"sti training state 1\n" + len(text).to_bytes(8, "little") + text
    path.write_bytes(raw + zlib.crc32(raw).to_bytes(4, "little"))
    with path.open("rb") as stream, pytest.raises(ValueError, match="it may have"):
        read_values(stream)


def test_a_state_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.bin").mkdir()
    with pytest.raises(StorageError, match=r"state\.bin: cannot be read: "):
        load_state(tmp_path / "state.bin", "mine")
    with pytest.raises(StorageError, match=r"state\.bin: cannot be written: "):
        save_state(tmp_path / "no" / "state.bin", "mine", STATE)


def test_winding_back_drops_later_records_and_one_cut_short(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.wind_back("plain", 0)
    assert not log.path.exists()
    records: list[dict[str, Any]] = [
        {"stage": "plain", "step": 5},
        {"stage": "plain", "step": 10},
        {"event": "plain stage done"},
        {"stage": "elastic", "step": 5},
        {"stage": "elastic", "step": 10},
    ]
    for record in records:
        log.write(record)
    with log.path.open("a") as stream:
        stream.write('{"stage": "ela')
    whole_log = log.path.read_text()

    def left(stage: Stage, step: int) -> list[object]:
        log.path.write_text(whole_log)
        log.wind_back(stage, step)
        return [json.loads(line) for line in log.path.read_text().splitlines()]

    assert left("elastic", 99) == records
    assert left("elastic", 9) == records[:4]
    assert left("elastic", 0) == records[:3]
    assert left("plain", 10) == records[:2]
    assert left("plain", 0) == []


def test_a_log_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="log: cannot be written: No such file"):
        Log(tmp_path / "no" / "log").write({})
    (tmp_path / "log").mkdir()
    with pytest.raises(StorageError, match="log: cannot be read: Is a directory"):
        Log(tmp_path / "log").wind_back("plain", 0)


def test_answers_come_in_the_order_of_the_examples(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, task="mean_classification")
    texts = sentences(20)
    with opened(checkpoint) as network:
        together = answers(network, examples(checkpoint, texts), whole(network))
        for text, row in zip(texts, together, strict=True):
            alone = answers(network, examples(checkpoint, [text]), whole(network))
            np.testing.assert_allclose(alone[0], row, rtol=1e-4, atol=1e-5)


def test_metrics_are_accuracy_and_correlation(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, task="mean_classification")
    with opened(checkpoint) as network:
        found = examples(checkpoint, sentences(20))
        logits = answers(network, found, whole(network))

        def scored(targets: np.ndarray, *, regression: bool) -> float:
            known = Examples(found.ids, found.types, targets.astype(np.float32))
            return metric(network, known, whole(network), regression=regression)

        best = logits.argmax(axis=1)
        wrong = np.where(np.arange(20) < 5, (best + 1) % 3, best)
        assert scored(best, regression=False) == 1.0
        assert scored(wrong, regression=False) == 0.75
        assert scored(2 * logits[:, 0] + 1, regression=True) == pytest.approx(1.0)
        assert scored(-logits[:, 0], regression=True) == pytest.approx(-1.0)
        assert scored(np.ones(20), regression=True) == 0.0


@pytest.mark.parametrize(("bad", "rate"), [("gradient", 1e-3), ("weight", 3e38)])
def test_the_optimizer_refuses_what_is_not_finite(tmp_path: Path, bad: str, rate: float) -> None:
    with opened(write_checkpoint(tmp_path)) as network:
        optimizer = Optimizer(network, rate=rate, head_rate=rate, decay=0.01, words=False)
        optimizer.start(0.06)
        network.positions.grad = torch.ones_like(network.positions)
        before = network.positions.detach().clone()
        if bad == "gradient":
            network.positions.grad[3, 3] = torch.inf
        with pytest.raises(NotFiniteError, match=f"a {bad}"):
            optimizer.step()
        assert bool((network.positions == before).all()) == (bad == "gradient")


def test_words_move_where_they_may_and_only_those_that_were_read(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path)
    for words in (True, False):
        with opened(checkpoint) as network:
            optimizer = Optimizer(network, rate=1e-3, head_rate=1e-3, decay=0.01, words=words)
            before = network.words.detach().clone()
            optimizer.start(0.06)
            with torch.no_grad():
                network.classifier.normal_(generator=torch.Generator().manual_seed(0))
            read = tokens(checkpoint, ["the dog runs"])
            network(read, whole(network))[0].square().sum().backward()
            optimizer.step()
            moved = (network.words != before).any(1).nonzero().flatten().tolist()
            assert moved == (sorted(set(read.ids.flatten().tolist())) if words else [])


def test_drafts_that_a_killed_run_left_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "state.bin"
    save_state(path, "mine", STATE)
    (tmp_path / f".state.bin.{'0' * 16}.part").write_bytes(b"half a state")
    assert load_state(path, "mine") is not None
    assert [item.name for item in tmp_path.iterdir()] == ["state.bin"]
