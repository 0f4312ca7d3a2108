"""The cache of graphs: whole or not there, checked when opened, bounded, nobody else's to write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sti.engine import graph_cache
from sti.engine.graph_cache import GraphCache
from sti.errors import GraphError
from tests.support.paths import ROOT


def writing(size: int = 1000) -> Callable[[Path], int]:
    def write(place: Path) -> int:
        (place / "model.onnx").write_bytes(b"m" * 10)
        (place / "weights.bin").write_bytes(b"w" * size)
        return size

    return write


@pytest.fixture
def cache(tmp_path: Path) -> GraphCache:
    return GraphCache(tmp_path / "sti" / "graphs", most_bytes=6000)


def kept(cache: GraphCache) -> list[str]:
    return sorted(p.name for p in cache.directory.iterdir() if p.name != "lock")


def test_what_was_built_is_found(cache: GraphCache) -> None:
    assert cache.find("one") is None
    assert cache.build("one", writing())
    assert not cache.build("one", writing())
    found = cache.find("one")
    assert found is not None
    assert found.packed_bytes == 1000
    assert found.unchanged()
    assert found.is_in_place()
    found.close()
    assert not found.unchanged()
    assert cache.find("two") is None


def test_files_and_directories_are_the_users_alone(cache: GraphCache) -> None:
    cache.build("one", writing())
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    assert (cache.directory / "one").stat().st_mode & 0o777 == 0o700
    for path in (cache.directory / "one").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


@pytest.mark.parametrize("name", ["model.onnx", "weights.bin"])
def test_a_changed_byte_is_found_and_the_graph_removed(cache: GraphCache, name: str) -> None:
    cache.build("one", writing())
    path = cache.directory / "one" / name
    raw = bytearray(path.read_bytes())
    raw[5] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(GraphError, match=f"one: .* removed: {name} does not match its digest"):
        cache.find("one")
    assert kept(cache) == []
    assert cache.build("one", writing())


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"graph": 2}',
        b'{"graph": 1, "packed_bytes": -1, "files": {}}',
        b'{"graph": 1, "packed_bytes": 1, "files": {}}',
        b'{"graph": 1, "packed_bytes": 1, "files": []}',
        b'{"graph": 1, "packed_bytes": 1, "files": {"../lock": {"bytes": 0, "sha256": ""}}}',
        b'{"graph": 1, "packed_bytes": 1, "files": {"model.onnx": 3}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_removes_the_graph(cache: GraphCache, record: bytes) -> None:
    cache.build("one", writing())
    (cache.directory / "one" / "graph.json").write_bytes(record)
    with pytest.raises(GraphError, match="one"):
        cache.find("one")
    assert kept(cache) == []


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def _open_to_others(path: Path) -> None:
    path.chmod(0o666)


@pytest.mark.parametrize("harm", [_fifo, _link, _open_to_others, Path.unlink])
@pytest.mark.parametrize("name", ["model.onnx", "weights.bin", "graph.json"])
def test_only_regular_files_of_ones_own_are_used(
    cache: GraphCache, harm: Callable[[Path], None], name: str
) -> None:
    cache.build("one", writing())
    harm(cache.directory / "one" / name)
    with pytest.raises(GraphError, match="one: a kept graph cannot be used"):
        cache.find("one")
    assert "one" not in kept(cache)


def test_a_directory_that_others_may_write_is_not_used(cache: GraphCache) -> None:
    cache.build("one", writing())
    cache.directory.chmod(0o777)
    for ask in (
        lambda: cache.find("one"),
        lambda: cache.build("two", writing()),
        lambda: cache.check_room(1),
    ):
        with pytest.raises(GraphError, match="graphs cannot be kept there: others"):
            ask()
    assert kept(cache) == ["one"]
    cache.directory.chmod(0o700)


def test_a_link_instead_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "graphs").symlink_to(tmp_path / "real")
    cache = GraphCache(tmp_path / "graphs")
    for ask in (lambda: cache.find("one"), lambda: cache.build("one", writing())):
        with pytest.raises(GraphError, match="not of the kind"):
            ask()
    assert list((tmp_path / "real").iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = GraphCache(tmp_path / "file" / "graphs")
    with pytest.raises(GraphError, match="XDG_CACHE_HOME"):
        cache.check_room(1)


def test_too_little_storage_is_told_before_anything_is_written(tmp_path: Path) -> None:
    cache = GraphCache(tmp_path / "graphs", most_bytes=1 << 70)
    with pytest.raises(GraphError, match="are free; free some"):
        cache.check_room(1 << 60)
    small = GraphCache(tmp_path / "graphs", most_bytes=100)
    with pytest.raises(GraphError, match="more than the 100 that are kept"):
        small.check_room(51)
    small.check_room(50)


def test_a_change_while_in_use_is_seen(cache: GraphCache) -> None:
    cache.build("one", writing())
    found = cache.find("one")
    assert found is not None
    path = cache.directory / "one" / "weights.bin"
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(0, 0))
    assert not found.unchanged()
    found.close()


def test_a_graph_in_use_that_is_removed_stays_usable(cache: GraphCache) -> None:
    cache.build("one", writing())
    found = cache.find("one")
    assert found is not None
    cache.remove("one")
    assert kept(cache) == []
    assert found.unchanged()
    assert not found.is_in_place()
    found.close()


def test_those_that_were_not_used_for_longest_are_removed(cache: GraphCache) -> None:
    for number, name in enumerate(("a", "b", "c", "d")):
        cache.build(name, writing())
        os.utime(cache.directory / name / "graph.json", ns=(number, number))
    found = cache.find("a")
    assert found is not None
    cache.used(found)
    assert found.unchanged()
    cache.build("e", writing())
    assert "a" in kept(cache)
    assert "e" in kept(cache)
    assert "b" not in kept(cache)
    found.close()


def test_nothing_is_left_of_a_graph_whose_writing_failed(cache: GraphCache) -> None:
    class Failure(Exception):
        pass

    def write(place: Path) -> int:
        writing()(place)
        raise Failure

    with pytest.raises(Failure):
        cache.build("one", write)
    assert kept(cache) == []
    assert cache.find("one") is None


def test_full_storage_is_a_typed_error(cache: GraphCache) -> None:
    def write(place: Path) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(GraphError, match="No space left"):
        cache.build("one", write)
    assert kept(cache) == []


def test_a_lock_that_stays_held_is_told(cache: GraphCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_cache, "LONGEST_WAIT_S", 0.1)

    def write(place: Path) -> int:
        with pytest.raises(GraphError, match="another process has been building"):
            cache.build("two", writing())
        return writing()(place)

    assert cache.build("one", write)
    assert kept(cache) == ["one"]


KILLED = """
import os, sys
from pathlib import Path
from sti.engine.graph_cache import GraphCache
def write(place):
    (place / "weights.bin").write_bytes(bytes(1000))
    os.kill(os.getpid(), 9)
GraphCache(Path(sys.argv[1])).build("one", write)
"""


def test_what_a_killed_builder_left_is_removed_by_the_next(cache: GraphCache) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(cache.directory)], cwd=ROOT, check=False
    )
    assert ended.returncode == -9
    assert len(kept(cache)) == 1
    assert cache.find("one") is None
    cache.build("one", writing())
    assert kept(cache) == ["one"]


MANY = """
import sys
from pathlib import Path
from sti.engine.graph_cache import GraphCache
cache = GraphCache(Path(sys.argv[1]))
def write(place):
    (place / "weights.bin").write_bytes(sys.argv[2].encode() * 100000)
    return 1
print(cache.build("one", write))
found = cache.find("one")
assert found is not None
found.close()
"""


def test_of_several_that_build_the_same_graph_one_does(cache: GraphCache) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, str(cache.directory), str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    said = [child.communicate()[0].strip() for child in started]
    assert sorted(said) == ["False", "False", "False", "True"]
    record = json.loads((cache.directory / "one" / "graph.json").read_text())
    assert record["packed_bytes"] == 1
