"""Models that ONNX Runtime saved prepacked: the same answers whole and layer by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from benchmarks import ort_models, prepacked_models
from benchmarks.prepacked_models import make_prepacked
from benchmarks.systems import prepacked
from benchmarks.systems.prepacked import Pipe, in_turn
from shard_tools.architectures.registry import open_model
from shard_tools.checkpoint.reader import Checkpoint
from sti.benchmark.system_process import Spec
from tests.support.packs import TINY_BERT, tiny_bert

IDS = ((1, 250, 7, 399, 12), (1, 5, 2))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = prepacked_models.directory(tmp_path_factory.mktemp("onnx"))
    assert make_prepacked(tiny_bert() / "checkpoint", place) == (
        *("whole.onnx", "embed.onnx", "layer_00.onnx", "layer_01.onnx", "head.onnx"),
    )
    return place


def answer(models: Path, **options: Any) -> NDArray[np.float32]:
    spec = Spec(str(models), ("",) * len(IDS), IDS, 1, options)
    with closing(prepacked.prepare(spec)()) as system:
        first, second = system.run(), system.run()
    assert first.tobytes() == second.tobytes()
    return first


def test_whole_and_in_layers_they_answer_as_the_float_model_does(models: Path) -> None:
    with Checkpoint(tiny_bert() / "checkpoint") as opened:
        bert = open_model(opened)
        wanted = np.stack([ort_models.reference(bert, np.array(row)) for row in IDS])
    whole = answer(models)
    assert float((whole * wanted).sum(axis=1).min()) > 0.999
    for order in ("turn", "pipe"):
        np.testing.assert_allclose(answer(models, layers=order), whole, atol=1e-5)


def test_every_product_is_fused_and_its_weights_are_packed_beforehand(models: Path) -> None:
    for name, layers in (("whole.onnx", TINY_BERT.layers), ("layer_00.onnx", 1)):
        made = onnx.load(models / name, load_external_data=False)
        kinds = Counter(node.op_type for node in made.graph.node)
        assert kinds["QAttention"] == layers
        assert kinds["DynamicQuantizeMatMul"] + kinds["MatMulIntegerToFloat"] == 3 * layers
        assert kinds["MatMulInteger"] == kinds["MatMul"] == kinds["Softmax"] == 0
    hidden, inner = TINY_BERT.hidden, TINY_BERT.inner
    weights = 4 * hidden * hidden + 2 * hidden * inner
    assert (models / "layer_00.onnx.data").stat().st_size >= 2 * weights


def test_what_is_there_is_not_made_again(models: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in models.iterdir()}
    make_prepacked(tiny_bert() / "checkpoint", models)
    assert {path.name: path.stat().st_mtime_ns for path in models.iterdir()} == before


def test_the_command_line_writes_all_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepacked_models.main([str(tiny_bert() / "checkpoint"), str(tmp_path)]) == 0
    assert "5 models" in capsys.readouterr().out


def test_unknown_orders_and_places_without_models_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="layers 'both'"):
        answer(models, layers="both")
    with pytest.raises(ValueError, match="no prepacked models"):
        answer(tmp_path)


def opener(log: list[str]) -> Any:
    def opened(path: Path) -> str:
        if path.name == "bad":
            raise OSError("bad")
        log.append(path.name)
        return path.name

    return opened


def test_in_turn_nothing_is_opened_before_it_is_asked_for() -> None:
    log: list[str] = []
    sessions: Iterator[Any] = in_turn([Path("a"), Path("b")], opener(log))
    assert next(sessions) == "a" and log == ["a"]
    assert list(sessions) == ["b"]


def test_in_a_pipe_one_is_opened_ahead_and_no_more() -> None:
    log: list[str] = []
    with closing(Pipe()) as pipe:
        sessions = pipe([Path(name) for name in "abcd"], opener(log))
        for number, session in enumerate(sessions, start=1):
            assert session == "abcd"[number - 1]
            assert len(log) <= number + 1
        assert log == list("abcd")


def test_a_model_that_cannot_be_opened_ahead_ends_the_run() -> None:
    with closing(Pipe()) as pipe:
        sessions = pipe([Path("a"), Path("bad"), Path("c")], opener([]))
        assert next(sessions) == "a"
        with pytest.raises(OSError, match="bad"):
            next(sessions)


def test_the_place_of_the_models_names_processor_and_version(tmp_path: Path) -> None:
    assert prepacked_models.directory(tmp_path).name.endswith(ort.__version__)
