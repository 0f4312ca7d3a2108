"""Where a checkpoint is found, and what is said where there is none."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from shard_tools.checkpoint.locate import CONVERT, locate, model_name
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.tokenizer_files import load_tokenizer
from sti.errors import CheckpointError, PackFormatError
from sti.pack.pack_reader import PackReader
from tests.support.checkpoints import write_checkpoint

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"


def hub(place: Path, revisions: tuple[str, ...], main: str | None = None) -> Path:
    """A cache folder of a hub with snapshots whose files are links to blobs."""
    folder = place / "models--x--y"
    for revision in revisions:
        snapshot = folder / "snapshots" / revision
        snapshot.mkdir(parents=True)
        blobs = write_checkpoint(folder / "blobs" / revision)
        for blob in blobs.iterdir():
            (snapshot / blob.name).symlink_to(blob)
    if main is not None:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(f"{main}\n")
    return folder


@pytest.mark.parametrize(
    ("revisions", "main", "expected"),
    [(("aa",), None, "aa"), (("aa", "bb"), "bb", "bb"), (("aa",), "gone", "aa")],
)
def test_a_hub_folder_means_the_snapshot_of_main_or_the_only_one(
    tmp_path: Path, revisions: tuple[str, ...], main: str | None, expected: str
) -> None:
    folder = hub(tmp_path, revisions, main)
    with Checkpoint(folder) as checkpoint:
        assert checkpoint.directory == folder / "snapshots" / expected
        assert model_name(checkpoint.directory) == "y"
    with pytest.raises(CheckpointError, match=r"several models \(models--x--y, \.\.\.\); name one"):
        locate(tmp_path)


def test_of_several_snapshots_one_is_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"2 snapshots, and refs/main names none.*: aa, bb"):
        locate(hub(tmp_path, ("aa", "bb")))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer_config.json", "vocab.txt"])
def test_links_that_lead_nowhere_are_named(tmp_path: Path, name: str) -> None:
    folder = hub(tmp_path, ("aa",))
    (folder / "blobs" / "aa" / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: is a link that leads nowhere"):
        locate(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "holds an adapter .*merge"),
        (["config.json", "model.gguf"], "model.gguf is of llama.cpp"),
        (["config.json", "model.onnx"], "model.onnx is an ONNX graph"),
        (["config.json", "tf_model.h5"], "tf_model.h5 is of another framework; load the model"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin is a pickle.*python -c"),
        (["config.json", "best.pt", "optimizer.pt"], "best.pt is a pickle"),
        (["config.json", "model.safetensors.incomplete"], "is half a download"),
        (["model.zip"], "model.zip is an archive; unpack it"),
        (["config.json"], "neither model.safetensors nor model.safetensors.index.json"),
        ([], "config.json is missing; a checkpoint is"),
    ],
)
def test_what_is_no_checkpoint_is_named_with_a_remedy(
    tmp_path: Path, files: list[str], message: str
) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(tmp_path)


def test_an_adapter_beside_a_model_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds an adapter"):
        Checkpoint(folder)


def test_files_of_the_hub_that_were_not_downloaded_are_half_downloads(tmp_path: Path) -> None:
    folder = hub(tmp_path, ("aa",))
    (folder / "snapshots" / "aa" / "model.safetensors").unlink()
    (folder / "blobs" / "4d7a.incomplete").write_text("")
    with pytest.raises(CheckpointError, match=r"4d7a\.incomplete is half a download"):
        Checkpoint(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer_config.json"])
def test_pointers_of_git_lfs_are_named(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    (folder / name).write_text(POINTER)
    message = rf"{name}: is a pointer of Git LFS.*git lfs pull"
    with pytest.raises(CheckpointError, match=message), Checkpoint(folder):
        load_tokenizer(folder)


def test_a_pack_that_is_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "pack").write_text(POINTER)
    with pytest.raises(PackFormatError, match=r"pack: is a pointer of Git LFS.*git lfs pull"):
        PackReader.open(tmp_path / "pack")


def test_a_byte_order_mark_in_a_vocabulary_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    words = (folder / "vocab.txt").read_bytes()
    (folder / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + words)
    with pytest.raises(CheckpointError, match=r"vocab\.txt: begins with a byte order mark"):
        load_tokenizer(folder)


def test_the_command_that_converts_a_pickle_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.numpy import load_file

    folder = write_checkpoint(tmp_path / "checkpoint")
    tensors = load_file(folder / "model.safetensors")
    shutil.move(folder / "model.safetensors", tmp_path / "kept")
    state = {name: torch.from_numpy(array) for name, array in tensors.items()}
    state["shared"] = state["embeddings.LayerNorm.weight"]
    saved = io.BytesIO()
    torch.save(state, saved)
    (folder / "pytorch_model.bin").write_bytes(saved.getvalue())
    with pytest.raises(CheckpointError) as refused:
        Checkpoint(folder)
    command = str(refused.value).partition("safetensors): ")[2]
    python, option, code, *names = shlex.split(command)
    assert (python, option) == ("python", "-c") and command.startswith(CONVERT)
    monkeypatch.setattr(sys, "argv", ["-c", *names])
    exec(code, {})
    with Checkpoint(folder) as checkpoint:
        assert checkpoint.names() == set(state)
    assert not re.search("pickle", code)
