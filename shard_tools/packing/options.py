"""The options of ``build``, and whether they make sense. Knows no checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shard_tools.quantization.blocks import GROUP_BYTES
from shard_tools.quantization.grids import outlier_cut
from sti.codec.codebook import check_ladder
from sti.errors import InputError, PackFormatError


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a user may choose. Empty texts and None stand for what the checkpoint says."""

    slices: int | None = None
    ladder: tuple[int, ...] | None = None
    """None: what the checkpoint was trained for, else ``DEFAULT_LADDER``."""
    grid_sigmas: float | None = None
    """None: what suits the weights; what checkpoints were trained for, where they were."""
    name: str = ""
    licence: str = ""
    source: str = ""
    calibration: Path | None = None
    """Texts to measure importance with, one per line; None: the set that comes with the builder."""
    group_bytes: int = GROUP_BYTES
    """The least that a slice group is to have at 2 bits; no option of the command."""


def check_options(options: BuildOptions) -> None:
    """Refuse what could not be built, before anything is read.

    Raises:
        InputError: names the option.
    """
    try:
        if options.ladder is not None:
            check_ladder(options.ladder)
    except PackFormatError as error:
        raise InputError(f"ladder: {error}") from error
    if options.grid_sigmas is not None:
        outlier_cut(grid_sigmas=options.grid_sigmas)
    for key in ("name", "licence", "source"):
        try:
            getattr(options, key).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{key}: is not valid Unicode text") from error
