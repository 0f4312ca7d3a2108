"""A plan that is held as a graph where a budget of memory has room for all of it."""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sti
from sti.backend.onnxruntime.plan_session import PlanSession
from sti.engine import memory_watch
from sti.engine.results import Result
from sti.pipeline.trace import BLOCKS
from sti.storage.drafts import draft_path
from sti.storage.file_reader import FileReader
from tests.support import engines
from tests.support.checkpoints import Task
from tests.support.counted_memory import MB, CountedMemory
from tests.support.packs import TEXTS, tiny_pack
from tests.support.processes import WAIT_S, children, forked, interpreter, until

LONG = "the dog runs under the table " * 6
_TOLD = "weights are held compressed, not as a graph: "


@pytest.fixture(autouse=True)
def watched(machine: CountedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's memory is looked at often."""
    monkeypatch.setattr(memory_watch, "LOOK_S", 0.01)
    monkeypatch.setattr(memory_watch, "IDLE_S", 1e9)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where graphs of a test are kept: none yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sti" / "graphs"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where graphs are kept from one test to the next; they may not be changed."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def built(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that need a graph, whoever built it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))


class Told(list[str]):
    """Notices; and when the first one came that is about graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def __call__(self, words: str) -> None:
        self.append(words)
        if "graph" in words:
            self.came.set()


def opened(task: Task = "embedding", memory: str | None = "30MB", **options: Any) -> sti.Engine:
    engine = engines.opened(memory, task=task, **options)
    engine.preloaded(0)  # a graph is built for who waits for it, or runs more than once
    return engine


def is_through_a_graph(result: Result) -> bool:
    """Whether one graph computed all blocks; else each block was."""
    names = [span.name for span in result.trace.lanes["compute"]]
    assert (BLOCKS in names) != any("connect" in name for name in names)
    return BLOCKS in names


def answers(result: Result) -> np.ndarray:
    return result.logits if result.task == "classification" else result.embeddings


def row_bytes(engine: sti.Engine, texts: tuple[str, ...]) -> int:
    rows = {int(row) for item in engine.tokenize(texts) for row in item.ids}
    return len(rows) * engine.manifest.embeddings.row_bytes


# ---- runs


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("task", ["embedding", "classification"])
def test_with_memory_for_all_runs_go_through_a_graph_with_the_same_answers(
    task: Task, threads: int
) -> None:
    with opened(task, threads=threads) as engine:
        assert engine.preloaded(WAIT_S)
        assert engine.mapped_bytes > 0
        for texts in (TEXTS, ("dog",), (*TEXTS, LONG)):
            found = engine.run(texts)
            assert is_through_a_graph(found)
            assert found.bytes_read == row_bytes(engine, texts)
            streamed = engine.run(texts, mode="sequential")
            assert not is_through_a_graph(streamed)
            np.testing.assert_array_equal(answers(found), answers(streamed))


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("fidelity", [2, 8])
def test_a_fidelity_is_held_as_it_is(fidelity: int) -> None:
    with opened(fidelity=fidelity, memory=None) as engine:
        expected = engine.run(TEXTS)
    with opened(fidelity=fidelity) as engine:
        assert engine.preloaded(WAIT_S)
        found = engine.run(TEXTS)
        assert is_through_a_graph(found)
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)
        counts = [[step.counts for step in item.plan.steps] for item in (found, expected)]
        assert counts[0] == counts[1]


@pytest.mark.usefixtures("built")
def test_within_a_latency_runs_go_through_the_graph_and_are_predicted_so() -> None:
    with opened("classification", latency="10s", adapt=False) as engine:
        assert engine.preloaded(WAIT_S)
        found = engine.run(TEXTS)
        assert is_through_a_graph(found) and found.plan.predicted is not None
        assert found.plan.predicted.bytes_read == 0


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("preload", ["0", "10KB"])
def test_a_preload_says_that_weights_are_held_compressed(preload: str) -> None:
    with opened(preload=preload) as engine:
        assert engine.preloaded(WAIT_S)
        assert not is_through_a_graph(engine.run(TEXTS)) and engine.mapped_bytes == 0


def test_nothing_is_held_as_a_graph_without_a_budget_or_with_a_small_one(cache: Path) -> None:
    for memory in (None, "6MB"):
        with opened(memory=memory) as engine:
            engine.preloaded(WAIT_S)
            assert not is_through_a_graph(engine.run(TEXTS)) and engine.mapped_bytes == 0
    assert not cache.exists()


def test_packs_on_other_storage_are_not_held_as_a_graph(cache: Path) -> None:
    with opened(storage=FileReader(tiny_pack())) as engine:
        assert engine.preloaded(WAIT_S) and engine.held_bytes > 0
        assert not is_through_a_graph(engine.run(TEXTS)) and engine.mapped_bytes == 0
    assert not cache.exists()


# ---- the cache


def test_a_graph_is_built_once_and_found_by_the_next_engine(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    with opened(notify=told) as engine:
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
    assert len(list(cache.glob("*/graph.json"))) == 1
    monkeypatch.setattr(sys, "executable", "")  # nothing can be built any more
    with opened(notify=told) as engine:
        assert engine.preloaded(WAIT_S)
        assert is_through_a_graph(engine.run(TEXTS))
    assert not told.came.is_set() and not children()


def test_two_engines_at_once_share_one_cache(cache: Path) -> None:
    with opened() as one, opened() as other:
        assert one.preloaded(WAIT_S) and other.preloaded(WAIT_S)
        first, second = one.run(TEXTS), other.run(TEXTS)
        assert is_through_a_graph(first) and is_through_a_graph(second)
        np.testing.assert_array_equal(first.embeddings, second.embeddings)
        one.close()
        assert is_through_a_graph(other.run(TEXTS))
    assert len(list(cache.glob("*/graph.json"))) == 1


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("no interpreter", "no interpreter"),
        ("nothing to start", "none can be started"),
        ("a child that fails", "ended without one (status 3)"),
        ("a cache that others may write", "others than the user may write to it"),
        ("a file for a cache", "graphs cannot be kept there"),
    ],
)
def test_where_no_graph_can_be_built_it_is_told_once_and_weights_are_preloaded(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, said: str
) -> None:
    if broken == "a cache that others may write":
        cache.mkdir(parents=True)
        cache.chmod(0o777)
    elif broken == "a file for a cache":
        cache.parent.mkdir(parents=True)
        cache.write_text("")
    else:
        made = {"no interpreter": "", "nothing to start": "/nowhere/python"}
        python = made.get(broken) if broken in made else interpreter(tmp_path, "exit 3")
        monkeypatch.setattr(sys, "executable", python)
    told = Told()
    with opened(notify=told, fidelity=8) as engine:
        assert told.came.wait(WAIT_S)
        assert engine.preloaded(WAIT_S)
        assert engine.held_bytes > 0 and engine.mapped_bytes == 0
        for _ in range(3):
            found = engine.run(TEXTS)
            assert not is_through_a_graph(found)
            assert found.bytes_read == row_bytes(engine, TEXTS)  # all else is held
    assert [words.startswith(_TOLD) and said in words for words in told] == [True]
    assert not children()


def test_a_graph_that_is_changed_is_told_not_used_and_built_again(cache: Path) -> None:
    told = Told()
    with opened(notify=told) as engine:
        assert engine.preloaded(WAIT_S)
        before = engine.run(TEXTS)
        with next(cache.glob("*/weights.bin")).open("r+b") as file:
            file.write(b"\x55\xaa")
        during = engine.run(TEXTS)
        assert not is_through_a_graph(during)
        assert told[0] == "the graph that holds the weights was changed, and is not used any more"
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
        after = engine.run(TEXTS)
        assert is_through_a_graph(after)
        np.testing.assert_array_equal(during.embeddings, before.embeddings)
        np.testing.assert_array_equal(after.embeddings, before.embeddings)
    assert len(told) == 2 and "does not match its digest" in told[1]


@pytest.mark.parametrize("group", [1, 2])
def test_a_graph_that_is_changed_amid_a_run_gives_none_of_its_answers(
    cache: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    real, calls, texts, told = PlanSession.run, [], (*TEXTS, LONG), Told()

    def run(self: PlanSession, state: Any) -> None:
        real(self, state)
        calls.append(1)
        if len(calls) == group:
            with next(cache.glob("*/weights.bin")).open("r+b") as file:
                file.write(b"\x55\xaa")

    with opened(notify=told) as engine:
        assert engine.preloaded(WAIT_S)
        before = engine.run(texts)
        names = [span.name for span in before.trace.lanes["compute"]]
        assert names.count(BLOCKS) == 2, "the change is to come between, or in the last one"
        monkeypatch.setattr(PlanSession, "run", run)
        during = engine.run(texts)
        assert len(calls) == group and not is_through_a_graph(during)
        np.testing.assert_array_equal(during.embeddings, before.embeddings)
        assert told[0] == "the graph that holds the weights was changed, and is not used any more"
        assert engine.preloaded(WAIT_S)
        assert is_through_a_graph(engine.run(texts))


def test_a_graph_that_is_removed_stays_in_use(cache: Path) -> None:
    with opened() as engine:
        assert engine.preloaded(WAIT_S)
        before = engine.run(TEXTS)
        for path in next(cache.glob("*/weights.bin")).parent.iterdir():
            path.unlink()
        after = engine.run(TEXTS)
        assert is_through_a_graph(after)
        np.testing.assert_array_equal(after.embeddings, before.embeddings)


# ---- what ends it


@pytest.fixture
def slow(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The first graph is never built through, only begun; gives what waits until it is."""
    begun, draft = tmp_path / "begun", draft_path(cache / "one")
    others = f'[ -e {begun} ] && exec {sys.executable} "$@"'
    python = interpreter(tmp_path, f"{others}\nmkdir -p {draft}\ntouch {begun}\nexec sleep 1000")
    monkeypatch.setattr(sys, "executable", python)

    return lambda: until(begun.exists)


def test_closing_ends_what_is_built(slow: Callable[[], None]) -> None:
    with opened() as engine:
        slow()
        assert children()
        assert not is_through_a_graph(engine.run(TEXTS))
        assert not engine.preloaded(0.01) or engine.mapped_bytes == 0
    assert not children()


def test_another_target_does_not_wait_for_what_is_built(slow: Callable[[], None]) -> None:
    with opened() as engine:
        slow()
        engine.set_target(fidelity=4)
        assert not is_through_a_graph(engine.run(TEXTS))
        assert engine.mapped_bytes == 0
    assert not children()


@pytest.mark.parametrize("memory", [None, "30MB"])
def test_what_is_built_for_an_earlier_target_is_ended_and_leaves_nothing(
    slow: Callable[[], None], cache: Path, memory: str | None
) -> None:
    told = Told()
    with opened(fidelity=8, notify=told) as engine:
        slow()
        (first,) = children()
        engine.set_target(memory=memory, fidelity=4)
        until(lambda: first not in children() and not list(cache.glob(".one.*")))
        engine.set_target(memory="30MB", fidelity=2)
        engine.preloaded(0)
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0  # others are built
    assert told == []


def test_what_is_built_goes_on_for_a_target_with_the_same_graph(slow: Callable[[], None]) -> None:
    with opened(fidelity=8) as engine:
        slow()
        before = children()
        engine.set_target(memory="40MB", fidelity=8)
        assert children() == before


def test_an_engine_that_is_dropped_ends_what_is_built(slow: Callable[[], None]) -> None:
    engine = opened()
    slow()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del engine
        gc.collect()
    assert ResourceWarning in [item.category for item in told]
    assert not children()


@pytest.mark.usefixtures("built")
def test_an_engine_that_is_dropped_gives_its_graph_back() -> None:
    engine = opened()
    assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        del engine
        gc.collect()
    assert ResourceWarning in [item.category for item in told]
    maps = Path(f"/proc/{os.getpid()}/maps").read_text()
    assert "weights.bin" not in maps


@pytest.mark.usefixtures("built")
def test_closing_gives_the_graph_back() -> None:
    with opened() as engine:
        assert engine.preloaded(WAIT_S)
        assert "weights.bin" in Path("/proc/self/maps").read_text()
    assert engine.mapped_bytes == 0
    assert "weights.bin" not in Path("/proc/self/maps").read_text()


@pytest.mark.usefixtures("built")
def test_a_target_without_a_budget_closes_the_graph_and_one_with_it_opens_it_again() -> None:
    with opened() as engine:
        assert engine.preloaded(WAIT_S)
        before = engine.run(TEXTS)
        engine.set_target()
        assert engine.mapped_bytes == 0
        streamed = engine.run(TEXTS)
        assert not is_through_a_graph(streamed) and engine.held_bytes == 0
        engine.set_target(memory="30MB")
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
        after = engine.run(TEXTS)
        assert is_through_a_graph(after)
        for found in (streamed, after):
            np.testing.assert_array_equal(found.embeddings, before.embeddings)


@pytest.mark.usefixtures("built")
def test_release_gives_the_graph_back_until_it_is_run_again() -> None:
    with opened() as engine:
        assert engine.preloaded(WAIT_S)
        before = engine.run(TEXTS)
        engine.release()
        assert engine.mapped_bytes == engine.held_bytes == 0 and not engine.preloaded(0.01)
        first = engine.run(TEXTS)
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
        second = engine.run(TEXTS)
        assert is_through_a_graph(second)
        for found in (first, second):
            np.testing.assert_array_equal(found.embeddings, before.embeddings)


@pytest.mark.usefixtures("built")
def test_calls_of_several_threads_have_the_same_answers_whatever_is_held() -> None:
    failures: list[BaseException] = []

    def answering(engine: sti.Engine, expected: np.ndarray) -> None:
        try:
            for _ in range(30):
                np.testing.assert_array_equal(engine.run(TEXTS).embeddings, expected)
        except BaseException as error:
            failures.append(error)

    with opened() as engine:
        expected = engine.run(TEXTS).embeddings
        threads = [threading.Thread(target=answering, args=(engine, expected)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for memory in ("30MB", "6MB", None, "40MB", "30MB") * 2:
            engine.set_target(memory=memory)
            engine.release()
            engine.preloaded(0.01)
        for thread in threads:
            thread.join(WAIT_S)
        assert not failures
        engine.run(TEXTS)
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0


def test_after_release_no_graph_is_there_until_a_run_and_what_is_built_is_used_then(
    cache: Path,
) -> None:
    with opened() as engine:
        engine.release()
        assert not engine.preloaded(0.2) and engine.mapped_bytes == 0
        engine.run(TEXTS)
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
        assert is_through_a_graph(engine.run(TEXTS))
    assert len(list(cache.glob("*/graph.json"))) == 1


# ---- forked children


def use_and_close(engine: sti.Engine) -> None:
    for use in (lambda: engine.run(TEXTS), engine.preloaded, engine.set_target):
        with pytest.raises(sti.RunError, match="opened in another process"):
            use()
    engine.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_can_close_the_engine_while_a_graph_is_built(
    slow: Callable[[], None], cache: Path
) -> None:
    with opened() as engine:
        slow()
        (builder,) = children()
        assert forked(lambda: use_and_close(engine)) == 0
        assert children() == [builder]
        assert list(cache.glob(".one.*"))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_can_close_the_engine_that_has_a_graph(threads: int) -> None:
    with opened(threads=threads) as engine:
        assert engine.preloaded(WAIT_S)
        before = engine.run(TEXTS)
        assert forked(lambda: use_and_close(engine)) == 0
        after = engine.run(TEXTS)
        assert is_through_a_graph(after)
        np.testing.assert_array_equal(after.embeddings, before.embeddings)


# ---- too little memory


def least_for_a_graph() -> int:
    """The smallest budget, within 10 KB, that has room for one."""
    low, high = 3 * MB, 30 * MB
    while high - low > 10_000:
        middle = (low + high) // 2
        with opened(memory=f"{middle}B", tokens=8) as engine:
            planned = engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
        low, high = (low, middle) if planned else (middle, high)
    return high


@pytest.mark.usefixtures("built")
def test_a_graph_gives_way_to_a_long_text_and_comes_back() -> None:
    with opened(memory=f"{least_for_a_graph()}B", tokens=8) as engine:
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
        before = engine.run(["dog"])
        assert is_through_a_graph(before)
        long = engine.run([LONG])
        assert not is_through_a_graph(long) and engine.mapped_bytes == 0
        engine.run(["dog"])
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
        after = engine.run(["dog"])
        assert is_through_a_graph(after)
        np.testing.assert_array_equal(after.embeddings, before.embeddings)
        np.testing.assert_array_equal(
            long.embeddings, engine.run([LONG], mode="sequential").embeddings
        )


@pytest.mark.usefixtures("built")
def test_a_graph_is_given_back_while_memory_is_short_and_comes_back(
    machine: CountedMemory,
) -> None:
    with opened() as engine:
        assert engine.preloaded(WAIT_S)
        before = engine.run(TEXTS)
        machine.has(40 * MB)
        until(lambda: engine.health().memory_short)
        assert engine.held_bytes == engine.mapped_bytes == 0
        short = engine.run(TEXTS)
        assert not is_through_a_graph(short)
        machine.has(4000 * MB)
        until(lambda: not engine.health().memory_short)
        engine.run(TEXTS)
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
        after = engine.run(TEXTS)
        assert is_through_a_graph(after)
        for found in (short, after):
            np.testing.assert_array_equal(found.embeddings, before.embeddings)


@pytest.mark.usefixtures("built")
def test_an_engine_opened_while_memory_is_short_has_a_graph_later(machine: CountedMemory) -> None:
    machine.has(40 * MB)
    with opened() as engine:
        short = engine.run(TEXTS)
        assert not is_through_a_graph(short) and engine.mapped_bytes == 0
        machine.has(4000 * MB)
        until(lambda: not engine.health().memory_short)
        engine.run(TEXTS)
        assert engine.preloaded(WAIT_S) and engine.mapped_bytes > 0
        after = engine.run(TEXTS)
        assert is_through_a_graph(after)
        np.testing.assert_array_equal(after.embeddings, short.embeddings)
