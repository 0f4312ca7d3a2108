"""What the documentation shows works: every command of ours, and every piece of Python.

Blocks run in an empty directory where the packs, checkpoints and texts they name are tiny ones.
Commands of other programs (pip, git) are left to whoever installs; a block behind the comment
``<!-- not run -->`` is only checked for known options.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import sti.cli.main
from shard_tools.cli import main as shard_cli
from sti.errors import StiWarning
from tests.support.checkpoints import Task, write_checkpoint
from tests.support.paths import ROOT
from tests.support.ranked_packs import ranked_pack, texts, write_data

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*.md")])
FENCE = re.compile(r"(?ms)^(<!-- not run -->\n)?```(sh|console|bash|python)\n(.*?)^```")
PACK = re.compile(r"[\w./-]+\.safetensors|\bPACK\b")

TARGETS = """
[targets.voice]
latency = "10s"
preload = "2MB"
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    run: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Block(page, line, match[2], match[3], match[1] is None)


def commands(block: Block) -> Iterator[list[str]]:
    """Our own commands of a shell block, words split; pipes and redirections are left out."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;|\|", line.removeprefix("$ ")):
            words = shlex.split(part, comments=True)
            if words[:2] in (["python", "-m"], ["python3", "-m"]):
                words = words[2:]
            if words and words[0].removeprefix(".venv/bin/") in ("sti", "sti-shard", "shard_tools"):
                yield [words[0].removeprefix(".venv/bin/"), *words[1:]]
            elif words[:1] in (["python"], ["python3"]) and words[1:2] and "examples/" in words[1]:
                yield words


SHELL = [block for block in blocks() if block.language != "python"]
PYTHON = [block for block in blocks() if block.language == "python"]
COMMANDS = [(block, words) for block in SHELL for words in commands(block)]


ROWS = 120
"""Of made-up data: enough to rank with."""


def wanted_task(text: str, name: str) -> Task:
    """What a pack that ``text`` names has to be for; names of packs say it, or the calls."""
    if ".tag(" in text:
        return "tagging"
    if ".classify(" in text or "intents" in name:
        return "classification"
    return "embedding"


@pytest.fixture
def place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack_for: Callable[[Task], Path]
) -> Callable[[str], Path]:
    """Makes a directory in which what ``text`` names is there; the working directory is it."""

    def make(text: str) -> Path:
        for name in set(PACK.findall(text)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            task = wanted_task(text, name)
            pack = ranked_pack() if task == "classification" else pack_for(task)
            shutil.copyfile(pack, tmp_path / name)
        for name in re.findall(r"--(?:data|dev|out-of-scope) ([\w./-]+)", text):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            write_data(tmp_path / name, ranked_pack(), texts(ROWS, longest=3))
        for folder in re.findall(r"sti-shard finetune ([\w./-]+)", text):
            write_checkpoint(tmp_path / folder)
        for folder in re.findall(r"sti-shard build ([\w./-]+)", text):
            write_checkpoint(tmp_path / folder)
        for name in re.findall(r"--input ([\w./-]+)", text):
            (tmp_path / name).write_text("the dog runs\nunder the table\n", encoding="utf-8")
        (tmp_path / "README.md").write_text("the dog runs\nunder the table\n", encoding="utf-8")
        (tmp_path / "sti.toml").write_text(TARGETS, encoding="utf-8")
        shutil.copytree(ROOT / "examples", tmp_path / "examples")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
        return tmp_path

    return make


def relaxed(words: list[str]) -> list[str]:
    """Latencies are those of a real model on the reader's machine: here any will do."""
    return [
        "10s" if before in ("--latency", "--targets") else word
        for before, word in zip(["", *words], words, strict=False)
    ]


def test_the_documentation_shows_commands_and_python() -> None:
    shown = {tuple(words[:2]) for _, words in COMMANDS}
    for command in ("run", "plan", "bench", "doctor"):
        assert ("sti", command) in shown
    for command in ("finetune", "build", "rank", "evaluate", "inspect", "verify"):
        assert ("sti-shard", command) in shown
    assert PYTHON


@pytest.mark.parametrize(
    ("block", "words"), COMMANDS, ids=[f"{block}-{words[1]}" for block, words in COMMANDS]
)
def test_a_command_of_the_documentation_works(
    block: Block, words: list[str], place: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = block.text if "build" not in words else " ".join(words)
    if not block.run:
        parser = sti.cli.main if words[0] == "sti" else shard_cli
        parser.build_parser().parse_known_args(words[1:])
        return
    if words[1] == "finetune":
        pytest.importorskip("torch")
        words = [*words, "--calibration-rows", "10", "--epochs", "1", "--plain-epochs", "1"]
    where = place(text)
    if words[0] in ("python", "python3"):
        ended = subprocess.run(
            [sys.executable, *relaxed(words[1:])],
            cwd=where,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return
    main = sti.cli.main.main if words[0] == "sti" else shard_cli.main
    code = main(relaxed(words[1:]))
    assert code == 0, capsys.readouterr().err


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_of_the_documentation_works(block: Block, place: Callable[[str], Path]) -> None:
    place(block.text)
    code = re.sub(r'latency="[^"]*"', 'latency="10s"', block.text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StiWarning)
        exec(compile(code, str(block), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target
