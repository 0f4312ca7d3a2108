"""The files of a training run: the state from which it continues, and its log.

In: where training stands, or a record. Out: a state file, replaced as a whole, so that a kill at
any moment leaves either the old or the new one; and a log with one JSON object per line, which is
wound back to the state when a run continues, so that no step is in it twice. Knows nothing of
how a step is done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from shard_tools.train.state_file import pack_values, read_values
from sti.errors import InputError, StorageError
from sti.storage.atomic_file import replacing
from sti.storage.drafts import remove_abandoned_drafts
from sti.storage.json_input import SMALL, parse_json
from sti.storage.own_files import open_own

Stage = Literal["plain", "elastic"]
STAGES: tuple[Stage, ...] = ("plain", "elastic")


@dataclass(frozen=True, slots=True)
class State:
    """Where training stands, after ``step`` steps of ``stage``."""

    stage: Stage
    step: int
    depths: Mapping[int, tuple[int, ...]]
    """Layers that each depth keeps; empty in the plain stage."""
    teacher: Mapping[str, Any]
    """Weights of the plain model; empty in its stage."""
    network: Mapping[str, Any]
    optimizer: Sequence[Mapping[str, Any]]


def save_state(path: Path, key: str, state: State) -> None:
    """Replace the state file.

    Args:
        key: names the run; ``load_state`` refuses the state of another.

    Raises:
        StorageError: it cannot be written.
    """
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    packed = pack_values({"key": key, **values})
    try:
        with replacing(path, private=True, needed_bytes=packed.size_bytes) as stream:
            packed.write(stream)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_state(path: Path, key: str) -> State | None:
    """The state of this run; None where there is none.

    Drafts of the state that a killed run left beside it are removed: each is as large as the state.

    Raises:
        InputError: the file is no state, is damaged, or is that of another run.
        StorageError: it cannot be read, or others than the user may write to it.
    """
    remove_abandoned_drafts(path)
    try:
        with os.fdopen(open_own(path), "rb") as stream:
            found = read_values(stream)
        same = found.pop("key") == key
        state = State(**found) if same else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: is no training state; remove it to start again") from error
    if not same:
        raise InputError(
            f"{path}: belongs to a run with other data or options; give the same again, or "
            "remove it to start again"
        )
    return state


class Log:
    """Records of a run, one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a record.

        Raises:
            StorageError: the file cannot be written.
        """
        try:
            descriptor = open_own(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with os.fdopen(descriptor, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(record) + "\n")
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}") from error

    def wind_back(self, stage: Stage, step: int) -> None:
        """Drop the records of later steps, which come again, and a last one cut short by a kill.

        Raises:
            StorageError: the file cannot be read or written.
        """
        if not self.path.exists():
            return
        kept = [line for line, place in self._places() if place <= (STAGES.index(stage), step)]
        try:
            with replacing(self.path, private=True) as stream:
                stream.write("".join(kept).encode("utf-8"))
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _places(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Whole lines, and the stage and the step they were written in."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(True)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be read: {error.strerror}") from error
        for line in lines:
            try:
                record = parse_json(line, SMALL)
                # What is written between the stages has neither.
                place = STAGES.index(record.get("stage", "elastic")), int(record.get("step", 0))
            except (ValueError, AttributeError, TypeError):
                continue
            yield line, place
