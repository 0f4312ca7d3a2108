"""What the documentation shows works: every command of ours, and every piece of Python.

Each runs as a reader would run it, in a process of its own, with the targets that are written
there. Packs that ship are those that ship; what readers have to bring themselves (their own packs,
checkpoints and texts) is tiny. On a slow machine a latency may be out of reach: a command answers,
or it refuses its target, and nothing else will do. Commands of other programs (pip, git) are left
to whoever installs; a block behind the comment ``<!-- not run -->`` is only checked for known
options. One behind ``<!-- as a script -->`` runs as a whole, in one shell.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

import sti.cli.main
from shard_tools.cli import main as shard_cli
from tests.support.checkpoints import Task, write_checkpoint
from tests.support.commands import in_process
from tests.support.paths import GOLDEN, INTENTS, MINILM, ROOT
from tests.support.ranked_packs import ranked_pack, texts, write_data

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/*.md")])
FENCE = re.compile(
    r"(?ms)^ *(?:<!-- (not run|as a script) -->\n *)?```(sh|console|bash|python)\n(.*?)^ *```"
)
PACK = re.compile(r"[\w./-]+\.safetensors|\bPACK\b")
TARGETS = re.compile(r"(?ms)^```toml\n([^`]*^\[targets\..*?)^```")
DEVICES = re.compile(r"(?ms)^```toml\n([^`]*^\[devices\..*?)^```")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    run: bool
    script: bool
    """Whether the whole of it is one script."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            how = match[1]
            yield Block(page, line, match[2], match[3], how != "not run", how == "as a script")


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
PYTHON = [block for block in blocks() if block.language == "python" and block.run]
SCRIPTS = [block for block in SHELL if block.script]
COMMANDS = [(block, words) for block in SHELL if not block.script for words in commands(block)]


ROWS = 120
"""Of made-up data: enough to rank with."""

QUICK = ("--calibration-rows", "10", "--epochs", "1", "--plain-epochs", "1")
"""Training as short as it can be."""

ONCE = ("--repeat", "1", "--cold-repeat", "1")
"""Every run of a benchmark once, instead of as often as figures need."""

NOTICE = re.compile(r"measuring this device|sti: notice: ")

REFUSED = re.compile(r".*\blatency of [\d.]+ [mu]?s\b.*;.*")
"""The line of an ``InfeasibleError`` whose limit is the latency: what was asked, and a remedy."""


def wanted_task(text: str, name: str) -> Task:
    """What a pack that ``text`` names has to be for; names of packs say it, or the calls."""
    if ".tag(" in text:
        return "tagging"
    if ".classify(" in text or "intents" in name:
        return "classification"
    return "embedding"


@pytest.fixture
def place(tmp_path: Path, pack_for: Callable[[Task], Path]) -> Callable[[Block, str], Path]:
    """Makes a directory in which there is what ``text``, on the page of a block, names."""

    def make(block: Block, text: str) -> Path:
        for name in set(PACK.findall(text)):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            if name.startswith("models/"):  # one that ships
                (tmp_path / name).symlink_to(ROOT / name)
                continue
            task = wanted_task(text, name)
            pack = ranked_pack() if task == "classification" else pack_for(task)
            shutil.copyfile(pack, tmp_path / name)
        for name in re.findall(r"sti-shard upgrade ([\w./-]+)", text):
            old = gzip.decompress((GOLDEN / "format1.sti.safetensors.gz").read_bytes())
            (tmp_path / name).write_bytes(old)
        for name in re.findall(r"--(?:data|dev|out-of-scope) ([\w./-]+)", text):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            write_data(tmp_path / name, ranked_pack(), texts(ROWS, longest=3))
        for folder in re.findall(r"sti-shard (?:finetune|build) ([\w./-]+)", text):
            write_checkpoint(tmp_path / folder)
        for name in re.findall(r"--(?:input|texts|calibration) ([\w./-]+)", text):
            (tmp_path / name).write_text("the dog runs\nunder the table\n", encoding="utf-8")
        (tmp_path / "README.md").symlink_to(ROOT / "README.md")
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        for pattern, file in ((TARGETS, "sti.toml"), (DEVICES, "devices.toml")):
            if found := pattern.search(block.page.read_text(encoding="utf-8")):
                (tmp_path / file).write_text(found[1], encoding="utf-8")
        return tmp_path

    return make


def run(arguments: list[str], where: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Python in ``where``, with this source tree as if it was installed."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def process_of(words: list[str]) -> list[str]:
    """What a command is called with, without being installed."""
    module = {"sti": "sti", "sti-shard": "shard_tools", "shard_tools": "shard_tools"}
    return ["-m", module[words[0]], *words[1:]] if words[0] in module else words[1:]


def refused(ended: subprocess.CompletedProcess[str]) -> bool:
    """Whether a command refused its latency, and did so as it should: in one line, with code 2."""
    lines = [line for line in ended.stderr.splitlines() if not NOTICE.match(line)]
    return ended.returncode == 2 and len(lines) == 1 and bool(REFUSED.fullmatch(lines[0]))


def answered(ended: subprocess.CompletedProcess[str], words: list[str], where: Path) -> bool:
    """Whether a command ended well and left an answer: printed, or in the file that it names."""
    if ended.returncode != 0:
        return False
    if "--json" in words:
        return bool(json.loads(ended.stdout))
    files = [where / name for option, name in pairwise(words) if option in ("-o", "--output")]
    return bool(ended.stdout.strip()) if not files else all(file.exists() for file in files)


def test_the_documentation_shows_commands_and_python() -> None:
    shown = {tuple(words[:2]) for _, words in COMMANDS}
    for command in ("run", "plan", "report", "bench", "doctor"):
        assert ("sti", command) in shown
    for command in (
        "finetune",
        "build",
        "check",
        "rank",
        "evaluate",
        "inspect",
        "verify",
        "share",
        "upgrade",
    ):
        assert ("sti-shard", command) in shown
    assert PYTHON


@pytest.mark.parametrize(
    ("block", "words"), COMMANDS, ids=[f"{block}-{words[1]}" for block, words in COMMANDS]
)
def test_a_command_of_the_documentation_answers_or_refuses_its_target(
    block: Block, words: list[str], place: Callable[[Block, str], Path]
) -> None:
    if not block.run:
        parser = sti.cli.main if words[0] == "sti" else shard_cli
        _, unknown = parser.build_parser().parse_known_args(words[1:])
        assert not unknown
        return
    if words[1] == "finetune":
        pytest.importorskip("torch")
        words = [*words, *QUICK]
    if words[1] == "bench":
        words = [*words, *ONCE]
    where = place(block, block.text if "build" not in words else " ".join(words))
    ended = run(process_of(words), where)
    assert answered(ended, words, where) or refused(ended), ended.stdout + ended.stderr


@pytest.mark.parametrize("block", SCRIPTS, ids=str)
def test_a_script_of_the_documentation_works(
    block: Block, place: Callable[[Block, str], Path], tmp_path: Path
) -> None:
    where, programs = place(block, block.text), tmp_path / "programs"
    programs.mkdir()
    for name, module in (("sti", "sti"), ("sti-shard", "shard_tools")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n', "utf-8")
        program.chmod(0o755)
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=where,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_of_the_documentation_answers_or_refuses_its_target(
    block: Block, place: Callable[[Block, str], Path]
) -> None:
    ended = run(["-"], place(block, block.text), block.text)
    last = (ended.stderr.splitlines() or [""])[-1]
    infeasible = last.startswith("sti.errors.InfeasibleError: ") and REFUSED.fullmatch(last)
    assert (ended.returncode == 0 and ended.stdout) or infeasible, ended.stderr


def test_the_blocks_that_ci_runs_are_marked() -> None:
    marked = re.findall(r'fenced "([\w ]+)"', (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    assert marked == ["run command", "test command"]
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in marked:
        assert page.count(f"<!-- {name} -->\n```sh\n") == 1


def test_packs_that_ship_are_shown_by_name() -> None:
    named = {name for block, _ in COMMANDS for name in PACK.findall(block.text)}
    assert {str(pack.relative_to(ROOT)) for pack in (MINILM, INTENTS)} <= named


@pytest.mark.parametrize(
    ("options", "as_it_should"),
    [
        (["--latency", "1us"], True),
        (["--latency", "1us", "--fidelity", "4"], True),
        (["--latency", "1us", "--json"], True),
        (["--latency", "soon"], False),
        (["--fidelity", "5"], False),
        (["--latency", "1us", "--target", "missing"], False),
        (["--unknown"], False),
    ],
)
def test_only_a_target_out_of_reach_passes_as_refused(
    options: list[str],
    as_it_should: bool,
    tmp_path: Path,
    tiny_pack: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answer = in_process(sti.cli.main.main, capsys)("run", tiny_pack, "a text", *options)
    ended = subprocess.CompletedProcess(options, answer.code, answer.out, answer.err)
    assert ended.returncode == 2
    assert refused(ended) == as_it_should, ended.stderr
    assert not answered(ended, options, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target
