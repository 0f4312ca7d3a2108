"""sentence-transformers' chain of modules: what follows the encoder of a sentence embedding.

In: ``modules.json`` and the configurations it points to, or a lone pooling configuration. Out:
``Modules``. Knows nothing of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from shard_tools.checkpoint.reader import Checkpoint
from sti.errors import CheckpointError
from sti.json_fields import JsonFields

_POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


@dataclass(frozen=True, slots=True)
class Modules:
    """What follows the encoder."""

    pooling: str
    normalize: bool


def read_modules(checkpoint: Checkpoint) -> Modules | None:
    """Pooling and normalization by ``modules.json``, or by a lone pooling configuration.

    Raises:
        CheckpointError: a module is not supported, or malformed; names it.
    """
    listed = checkpoint.json("modules.json")
    where = str(checkpoint.directory / "modules.json")
    if listed is None:
        pooling = _pooling(checkpoint, "1_Pooling")
        return None if pooling is None else Modules(pooling, normalize=False)
    fields = JsonFields({"modules": listed}, where=where, error=CheckpointError)
    kinds: list[tuple[str, str]] = [
        (item.text("type").rsplit(".", 1)[-1], item.text("path"))
        for item in fields.objects("modules")
    ]
    names = [kind for kind, _ in kinds]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise CheckpointError(
            f"{where}: modules {', '.join(names)} are not supported; supported: Transformer, "
            "Pooling, and optionally Normalize"
        )
    if kinds[0][1] not in ("", "."):
        raise CheckpointError(
            f"{where}: the Transformer module is in {kinds[0][1]!r}; put that directory's "
            "files beside the module files"
        )
    folder = PurePosixPath(kinds[1][1])
    if folder.is_absolute() or ".." in folder.parts:
        raise CheckpointError(f"{where}: the Pooling module is outside the checkpoint")
    pooling = _pooling(checkpoint, str(folder))
    if pooling is None:
        raise CheckpointError(f"{checkpoint.directory / folder / 'config.json'} is missing")
    return Modules(pooling, names[-1] == "Normalize")


def _pooling(checkpoint: Checkpoint, folder: str) -> str | None:
    """The pooling mode that is switched on in a Pooling module's configuration."""
    config: Any = checkpoint.json(f"{folder}/config.json")
    if config is None:
        return None
    where = str(checkpoint.directory / folder / "config.json")
    fields = JsonFields(config, where=where, error=CheckpointError)
    modes = [
        key for key in fields.keys() if key.startswith("pooling_mode_") and fields.raw(key) is True
    ]
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise CheckpointError(
            f"{where}: pooling {', '.join(modes) or 'of no kind'} is not supported; supported: "
            f"one of {', '.join(_POOLING)}"
        )
    return _POOLING[modes[0]]
