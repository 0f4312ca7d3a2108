"""Memory cgroups of both versions: on made-up trees, and on this machine's where it has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cgroups
from benchmarks.cgroups import NoGroups, memory_group


def tree(root: Path, mounts: str, own: str) -> None:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "mounts").write_text(mounts, encoding="utf-8")
    (root / "proc" / "self" / "cgroup").write_text(own, encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    return tmp_path


def group_of(words: tuple[str, ...]) -> Path:
    return Path(words[-1]).parent


def emptied(group: Path) -> None:
    """Its files would vanish with it if it were a real one."""
    for path in group.iterdir():
        path.unlink()


def test_version_1_limits_memory_in_a_group_below_its_own(root: Path) -> None:
    tree(
        root,
        "cgroup /cg/cpu cgroup rw,cpu 0 0\ncgroup /cg/m cgroup rw,memory 0 0\n",
        "4:memory:/a/b\n",
    )
    (root / "cg" / "m" / "a" / "b").mkdir(parents=True)
    with memory_group(64_000_000) as words:
        group = group_of(words)
        assert group.parent == root / "cg" / "m" / "a" / "b"
        assert (group / "memory.limit_in_bytes").read_text() == "64000000"
        emptied(group)
    assert not group.exists()


def test_version_2_takes_the_nearest_group_whose_groups_have_limits(root: Path) -> None:
    tree(root, "cgroup2 /cg cgroup2 rw 0 0\n", "0::/a/b\n")
    (root / "cg" / "a" / "b").mkdir(parents=True)
    (root / "cg" / "a" / "cgroup.subtree_control").write_text("cpu memory\n", encoding="ascii")
    (root / "cg" / "a" / "b" / "cgroup.subtree_control").write_text("cpu\n", encoding="ascii")
    with memory_group(64_000_000) as words:
        group = group_of(words)
        assert group.parent == root / "cg" / "a"
        assert (group / "memory.max").read_text() == "64000000"
        emptied(group)
    assert not group.exists()


def test_without_a_controller_it_is_said(root: Path) -> None:
    with pytest.raises(NoGroups, match="no memory controller"), memory_group(1):
        pass
    tree(root, "cgroup2 /cg cgroup2 rw 0 0\n", "0::/\n")
    with pytest.raises(NoGroups, match="no memory controller"), memory_group(1):
        pass


def test_without_the_right_to_make_groups_it_is_said(root: Path) -> None:
    tree(root, "cgroup /cg/m cgroup rw,memory 0 0\n", "4:memory:/\n")
    (root / "cg").mkdir()
    (root / "cg" / "m").write_text("no directory", encoding="ascii")
    with pytest.raises(NoGroups, match="Not a directory"), memory_group(1):
        pass


def test_a_process_that_wants_more_than_the_limit_is_killed() -> None:
    hold = "import sys; bytearray(int(sys.argv[1])); print('held')"
    try:
        with memory_group(100_000_000) as words:
            little, much = (
                subprocess.run(
                    [*words, sys.executable, "-c", hold, size],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                for size in ("1000000", "300000000")
            )
    except NoGroups as error:
        pytest.skip(str(error))
    assert little.stdout == "held\n"
    assert much.returncode == -9 and not much.stdout
    assert not [path for path in os.listdir(group_of(words).parent) if path.startswith("sti-")]
