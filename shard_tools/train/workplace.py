"""The directory that a run works in until it is done, and what tells one run from another.

In: options and paths. Out: ``OUTPUT.training``, a key of everything that the result depends on, and
the finished checkpoint in its place. Knows nothing of training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from shard_tools.train.options import FinetuneOptions
from shard_tools.train.record import LOG
from sti.errors import StorageError
from sti.storage.plain_files import regular

CHECKPOINT = "checkpoint"
"""Where the finished checkpoint is put together, in the work directory."""

_READ = (".json", ".safetensors", ".txt")
"""Files of a checkpoint by the ends of their names: weights, configuration, tokenizer."""


def make_work_directory(output: Path) -> Path:
    """``OUTPUT.training``, made if need be.

    Raises:
        StorageError: it cannot be made.
    """
    work = output.with_name(output.name + ".training")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{work}: cannot be made: {error.strerror}") from error
    return work


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
        with open(path, "rb", opener=regular) as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def finish(work: Path, output: Path) -> None:
    """Move the checkpoint to its place and remove what a resume would have needed.

    Raises:
        StorageError: it cannot be moved.
    """
    try:
        shutil.copyfile(work / LOG, work / CHECKPOINT / LOG)
        os.replace(work / CHECKPOINT, output)
        shutil.rmtree(work)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written: {error}") from error
