"""The directory that a run works in until it is done, and what tells one run from another.

In: options and paths. Out: ``OUTPUT.training``, held by one process at a time; a key of everything
that the result depends on; the finished checkpoint in its place. Whenever the process is killed,
the next run of the same output finds the work as it was, or finds it done and removes what is left.
Knows nothing of training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from shard_tools.train.options import FinetuneOptions
from shard_tools.train.record import LOG
from sti.errors import InputError, StorageError
from sti.storage.atomic_file import sync_directory
from sti.storage.file_lock import lock_open
from sti.storage.own_files import check_directory, open_own

CHECKPOINT = "checkpoint"
"""Where the finished checkpoint is put together, in the work directory."""

_LOCK = "lock"
"""A file that also says that ``finetune`` made the directory."""

_READ = (".json", ".safetensors", ".txt")
"""Files of a checkpoint by the ends of their names: weights, configuration, tokenizer."""


def work_directory(output: Path) -> Path:
    """``OUTPUT.training``."""
    return output.with_name(f"{output.name}.training")


def check_output(output: Path) -> None:
    """Finish or remove what a run that was killed at its very end left; then refuse what exists.

    Raises:
        InputError: ``output`` exists, or another process is about to make it.
        StorageError: what was left cannot be moved.
    """
    done = _done(output)
    if done.is_dir() and not done.is_symlink():
        with _held(done):
            if not (done / CHECKPOINT).exists():
                shutil.rmtree(done, ignore_errors=True)
            elif not os.path.lexists(output) and not os.path.lexists(work_directory(output)):
                _rename(done, work_directory(output))
    if os.path.lexists(output):
        raise InputError(f"{output}: exists; name another output, or remove it")


@contextmanager
def workplace(output: Path) -> Iterator[Path]:
    """The work directory, made if need be, while no other process works in it.

    Raises:
        InputError: it is no directory that ``finetune`` made, or another process works in it.
        StorageError: it cannot be made, or others than the user may write to it.
    """
    work = work_directory(output)
    try:
        work.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(work):
            work.mkdir(mode=0o700)
    except OSError as error:
        raise StorageError(f"{work}: cannot be made: {error.strerror}") from error
    try:
        check_directory(work)
        names = os.listdir(work)
    except OSError as error:
        raise StorageError(f"{work}: cannot be used: {error.strerror or error}") from error
    if names and _LOCK not in names:
        raise InputError(f"{work}: exists and is of something else; name another output")
    with _held(work):
        yield work


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    path = directory / _LOCK
    try:
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise StorageError(f"{path}: cannot be used: {error.strerror or error}") from error
    try:
        with suppress(OSError):  # where files are not locked, nobody is told
            if not lock_open(descriptor):
                raise InputError(
                    f"{directory}: another process works there; wait for it, or name another output"
                )
        yield
    finally:
        os.close(descriptor)


def run_key(options: FinetuneOptions, checkpoint: Path, data: Iterable[Path]) -> str:
    """Names everything that the result depends on, but for the rates.

    A run whose loss became infinite continues from its last good state with a lower rate.

    Args:
        options: with the precision that is really used, and without the number of threads.
        data: the data files.
    """
    chosen = asdict(options)
    for rate in ("rate", "plain_rate", "head_rate"):
        del chosen["training"][rate]
    digest = hashlib.sha256(json.dumps(chosen).encode())
    files = [path for path in checkpoint.iterdir() if path.suffix in _READ]
    for path in (*sorted(files), *data):
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def finish(work: Path, output: Path) -> None:
    """Move the checkpoint, which is on storage then, to its place, and remove the rest.

    The work directory gets another name first: one in which there is no checkpoint any more is
    known to be done with.

    Raises:
        StorageError: it cannot be moved.
    """
    done = _done(output)
    try:
        shutil.copyfile(work / LOG, work / CHECKPOINT / LOG)
        _sync(work / CHECKPOINT)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error}") from error
    _rename(work, done)
    _rename(done / CHECKPOINT, output)
    shutil.rmtree(done, ignore_errors=True)


def _done(output: Path) -> Path:
    return output.with_name(f"{output.name}.training.done")


def _rename(old: Path, new: Path) -> None:
    try:
        os.rename(old, new)
    except OSError as error:
        raise StorageError(f"{new}: cannot be written: {error.strerror or error}") from error


def _sync(place: Path) -> None:
    """Wait until all that is in a directory is on storage."""
    for path in place.iterdir():
        if path.is_dir():
            _sync(path)
            continue
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_directory(place)
