"""The sizes and fidelities a checkpoint was trained for: ``elastic.json``, and a pack's notes.

Also defines the submodels that every training step includes. In: JSON values. Out: checked depths
(how many layers, and which), widths (leading slices), ladder and estimated gains, or an error that
names the entry. Knows nothing of how training or measuring is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from shard_tools.checkpoint.reader import Checkpoint
from sti.codec.codebook import check_ladder
from sti.errors import CheckpointError, PackFormatError, StiError
from sti.json_fields import JsonFields

ELASTIC = "elastic.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """The gain of every plane, as training estimated it."""

    measure: str
    examples: int
    gains: Mapping[tuple[int, str], tuple[tuple[float, ...], ...]]
    """By layer and kind of a block: one row per plane of the ladder, one number per slice."""


@dataclass(frozen=True, slots=True)
class Elastic:
    """Depths and widths that were trained, with ladder and estimated gains where there are any."""

    slices: int
    depths: Mapping[int, tuple[int, ...]]
    """Depth to the numbers of the layers it keeps, ascending."""
    widths: tuple[int, ...]
    ladder: tuple[int, ...] = ()
    """Fidelities that were trained; empty if training used float weights."""
    estimate: Estimate | None = None

    def notes(self) -> dict[str, Any]:
        """Depths and widths as a pack's notes hold them."""
        depths = {str(depth): list(layers) for depth, layers in self.depths.items()}
        return {"depths": depths, "widths": list(self.widths)}


def read_elastic(checkpoint: Checkpoint, *, layers: int) -> Elastic | None:
    """The checkpoint's ``elastic.json``; None where there is none.

    Args:
        checkpoint: the open checkpoint.
        layers: layers of the model.

    Raises:
        CheckpointError: it is malformed, of an unknown version, or does not fit the model.
        StorageError: the file cannot be read.
    """
    found = checkpoint.json(ELASTIC)
    if found is None:
        return None
    where = f"{checkpoint.directory / ELASTIC}"
    if not isinstance(found, dict) or type(found.get("elastic")) is not int:
        raise CheckpointError(f"{where}: expected a JSON object with the version as 'elastic'")
    if found["elastic"] != VERSION:
        raise CheckpointError(
            f"{where}: version {found['elastic']} is unknown, expected {VERSION}; upgrade sti"
        )
    slices = found.get("slices")
    if type(slices) is not int or slices < 1:
        raise CheckpointError(f"{where}: slices must be a number above 0")
    elastic = checked(
        found.get("depths"),
        found.get("widths"),
        layers=layers,
        slices=slices,
        where=where,
        error=CheckpointError,
    )
    fields = JsonFields(found, where=where, error=CheckpointError)
    ladder = _ladder(fields) if fields.has("ladder") else ()
    if not fields.has("importance"):
        return replace(elastic, ladder=ladder)
    shape = (len(ladder), slices)
    return replace(elastic, ladder=ladder, estimate=_estimate(fields.object("importance"), shape))


def _ladder(fields: JsonFields) -> tuple[int, ...]:
    found = fields.integers("ladder")
    try:
        return check_ladder(found) if found else ()
    except PackFormatError as error:
        raise fields.fail("ladder", "a list of fidelities, ascending within 2..8") from error


def _estimate(fields: JsonFields, shape: tuple[int, int]) -> Estimate:
    """The estimated gains, each block's of ``shape`` (planes, slices)."""
    planes, slices = shape
    gains: dict[tuple[int, str], tuple[tuple[float, ...], ...]] = {}
    for block in fields.objects("blocks"):
        numbered = {f"gains[{row}]": value for row, value in enumerate(block.items("gains"))}
        rows = JsonFields(numbered, where=block.where, error=CheckpointError)
        found = tuple(rows.numbers(row) for row in rows.keys())
        good = len(found) == planes and all(len(row) == slices for row in found)
        if not good or any(min(row) < 0.0 for row in found):
            raise block.fail("gains", f"{planes} rows of {slices} numbers of at least 0")
        name = block.integer("layer"), block.text("kind")
        if name in gains:
            raise block.fail("layer", "a block that is not listed twice")
        gains[name] = found
    return Estimate(fields.text("measure"), fields.integer("examples", least=1), gains)


def checked(
    depths: Any, widths: Any, *, layers: int, slices: int, where: str, error: type[StiError]
) -> Elastic:
    """Depths and widths, checked, from their JSON values.

    Args:
        depths: an object that maps each depth to the layers it keeps.
        widths: a list of widths.
        layers: layers of the model.
        slices: slices of the model.
        where: the file, for messages.
        error: what is raised for bad values.

    Raises:
        error: a value is malformed or beyond the model; names it.
    """

    def numbers(value: Any, least: int, most: int, name: str) -> tuple[int, ...]:
        good = isinstance(value, list) and bool(value)
        good = good and all(type(item) is int and least <= item <= most for item in value)
        if not good or value != sorted(set(value)):
            raise error(f"{where}: {name} must list ascending numbers from {least} to {most}")
        return tuple(value)

    if not isinstance(depths, dict) or not depths:
        raise error(f"{where}: depths must map each depth to the layers it keeps")
    found = {}
    for key, value in depths.items():
        kept = numbers(value, 0, layers - 1, f"depths[{key!r}]")
        if str(len(kept)) != key:
            raise error(f"{where}: depths[{key!r}] lists {len(kept)} layers")
        found[len(kept)] = kept
    return Elastic(slices, found, numbers(widths, 1, slices, "widths"))


def middle(layers: int, slices: int) -> tuple[int, int]:
    """Depth and width of the submodel with half the layers and half the slices."""
    return max(1, layers // 2), max(1, slices // 2)


def smallest(layers: int, slices: int) -> tuple[int, int]:
    """Depth and width of the smallest submodel that every step trains.

    A third of the layers and a quarter of the slices. Smaller ones are trained too, at random: in
    every step, their large losses would dominate the layers that all submodels share.
    """
    return max(1, layers // 3), max(1, slices // 4)
