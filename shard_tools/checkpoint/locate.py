"""Where a checkpoint is in what the user named, and why it is none where it is none.

In: a path. Out: the directory with the checkpoint's files, or an error that says in words what lies
there instead and what to do. Files of other formats are named, never opened: unpickling runs code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sti.errors import CheckpointError
from sti.storage.plain_files import read_plain

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
WANTED = f"a checkpoint is a directory with config.json, {SINGLE} and tokenizer files"
_HUB, _SNAPSHOTS = "models--", "snapshots"
_REF_BYTES = 256
_ADAPTER = "adapter_config.json"
_ADAPTER_WORDS = (
    "holds an adapter (LoRA or another of PEFT), not a whole model; merge it into its model first "
    "(merge_and_unload and save_pretrained of peft), and build that"
)
_READ = (".json", ".txt", ".safetensors")
_DANGLING_WORDS = (
    "is a link that leads nowhere: the download is not complete, or the files were moved without "
    "what their links lead to; download the model again, or copy it with cp -L"
)
_PARTS = (".incomplete", ".part", ".aria2", ".crdownload", ".download")
CONVERT = (
    'python -c "import sys, torch; from safetensors.torch import save_file; '
    "t = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
    'save_file({k: v.clone().contiguous() for k, v in t.items()}, sys.argv[2])" '
)
"""Turns a pickle of tensors into safetensors: ``weights_only`` runs none of its code."""


def locate(path: Path) -> Path:
    """The directory of a checkpoint: ``path``, or the snapshot in it of a hub's cache folder.

    Raises:
        CheckpointError: there is none; says what there is instead.
    """
    if not path.is_dir():
        if path.is_file():
            raise CheckpointError(f"{path}: is a file; name the directory; {WANTED}")
        raise CheckpointError(f"{path}: no such directory; {WANTED}")
    found = path if (path / "config.json").exists() else _snapshot(path)
    if (found / _ADAPTER).exists():
        raise CheckpointError(f"{found}: {_ADAPTER_WORDS}")
    for item in sorted(found.iterdir()):
        if item.name.endswith(_READ) and item.is_symlink() and not item.exists():
            raise CheckpointError(f"{item}: {_DANGLING_WORDS}")
    return found


def _snapshot(path: Path) -> Path:
    """The snapshot in a hub's cache folder; ``path`` where it is none."""
    snapshots = path / _SNAPSHOTS
    if not snapshots.is_dir():
        inner = sorted(item for item in path.glob(f"{_HUB}*") if item.is_dir())
        if inner:
            some = ", ".join(item.name for item in inner[:3])
            raise CheckpointError(f"{path}: holds several models ({some}, ...); name one of them")
        return path
    found = sorted(item for item in snapshots.iterdir() if item.is_dir())
    main = _main_revision(path)
    named = [item for item in found if item.name == main]
    chosen = named or found
    if len(chosen) == 1:
        return chosen[0]
    if not chosen:
        raise CheckpointError(f"{snapshots}: is empty; download the model again")
    some = ", ".join(item.name for item in chosen)
    raise CheckpointError(
        f"{path}: has {len(chosen)} snapshots, and refs/main names none of them; name one: {some}"
    )


def _main_revision(path: Path) -> str:
    try:
        return read_plain(path / "refs" / "main", _REF_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def model_name(directory: Path) -> str:
    """What a model is called, by its directory; of a hub's snapshot, by the folder around it."""
    found = directory.resolve()
    if found.parent.name == _SNAPSHOTS and found.parent.parent.name.startswith(_HUB):
        return found.parent.parent.name.rpartition("--")[2]
    return found.name


def no_config(directory: Path) -> CheckpointError:
    """Why a directory has no ``config.json``."""
    return CheckpointError(
        f"{directory}: {_other_kind(directory) or f'config.json is missing; {WANTED}'}"
    )


def no_weights(directory: Path) -> CheckpointError:
    """Why a directory has no tensors that can be read."""
    return CheckpointError(
        f"{directory}: {_other_kind(directory) or f'neither {SINGLE} nor {INDEX} is there'}"
    )


def _other_kind(directory: Path) -> str:
    """What there is instead of a checkpoint, and what to do; empty for nothing that is known."""
    names = sorted(path.name for path in directory.iterdir())
    blobs = directory.parent.parent / "blobs"
    if directory.parent.name == _SNAPSHOTS and blobs.is_dir():
        names += sorted(path.name for path in blobs.iterdir())
    if parts := [name for name in names if name.endswith(_PARTS)]:
        return f"{parts[0]} is half a download; download the model again"
    if pickles := _ending(names, (".bin", ".pt", ".pth", ".ckpt", ".pkl")):
        return _pickle_words(directory, pickles)
    for ends, what, remedy in _FORMATS:
        if found := _ending(names, ends):
            return f"{found[0]} is {what}; {remedy}"
    return ""


_FLOAT = "build from the model in float, in safetensors"
_FORMATS: Sequence[tuple[tuple[str, ...], str, str]] = (
    ((".gguf", ".ggml"), "of llama.cpp, quantized or not", _FLOAT),
    ((".onnx",), "an ONNX graph, whose weights have lost their names", _FLOAT),
    (
        (".h5", ".index", ".msgpack", ".pb", ".ot", ".mlmodel", ".tflite"),
        "of another framework",
        "load the model with transformers and save it with save_pretrained, in safetensors",
    ),
    ((".zip", ".tar", ".gz", ".7z"), "an archive", "unpack it, and name the directory"),
)


def _ending(names: Sequence[str], ends: tuple[str, ...]) -> list[str]:
    skipped = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    return [name for name in names if name.endswith(ends) and name not in skipped]


def _pickle_words(directory: Path, pickles: Sequence[str]) -> str:
    chosen = next((name for name in pickles if name.startswith("pytorch_model")), pickles[0])
    return (
        f"{chosen} is a pickle, which may run code and is never opened; convert it (needs torch "
        f"and safetensors): {CONVERT}{directory / chosen} {directory / SINGLE}"
    )
