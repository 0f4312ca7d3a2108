"""What a checkpoint was trained for: ``elastic.json``, and the notes of a pack.

Here are also the sizes that every step of training sees. In: JSON values. Out: checked depths (how
many layers, and which), widths (leading slices), ladder and estimated gains, or an error that names
the entry. Knows nothing of how training or measuring is done.
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
    """What training estimated of every plane's gain."""

    measure: str
    examples: int
    gains: Mapping[tuple[int, str], tuple[tuple[float, ...], ...]]
    """By layer and kind of a block: a row a plane of the ladder, a number a slice."""


@dataclass(frozen=True, slots=True)
class Elastic:
    """Depths and widths, and what else training left."""

    slices: int
    depths: Mapping[int, tuple[int, ...]]
    """Layers kept, by their number."""
    widths: tuple[int, ...]
    ladder: tuple[int, ...] = ()
    """Fidelities trained for; empty where float weights were."""
    estimate: Estimate | None = None

    def notes(self) -> dict[str, Any]:
        """As they stand in a pack's notes."""
        depths = {str(depth): list(layers) for depth, layers in self.depths.items()}
        return {"depths": depths, "widths": list(self.widths)}


def read_elastic(checkpoint: Checkpoint, *, layers: int) -> Elastic | None:
    """The checkpoint's ``elastic.json``; None where there is none.

    Args:
        layers: of the model.

    Raises:
        CheckpointError: it is malformed, of an unknown version, or does not fit the model.
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
        raise fields.fail("ladder", "a list of fidelities, rising within 2..8") from error


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
            raise block.fail("layer", "a block that was not there before")
        gains[name] = found
    return Estimate(fields.text("measure"), fields.integer("examples", least=1), gains)


def checked(
    depths: Any, widths: Any, *, layers: int, slices: int, where: str, error: type[StiError]
) -> Elastic:
    """Depths and widths as JSON has them.

    Raises:
        error: they are not what they should be, or beyond the model.
    """

    def numbers(value: Any, least: int, most: int, name: str) -> tuple[int, ...]:
        good = isinstance(value, list) and bool(value)
        good = good and all(type(item) is int and least <= item <= most for item in value)
        if not good or value != sorted(set(value)):
            raise error(f"{where}: {name} must list rising numbers from {least} to {most}")
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
    """Depth and width of the submodel with half of both."""
    return max(1, layers // 2), max(1, slices // 2)


def smallest(layers: int, slices: int) -> tuple[int, int]:
    """Depth and width of the smallest submodel that every step trains.

    A third of the layers and a quarter of the slices: smaller ones have their turn by chance, but
    trained in every step their large losses would rule the layers that all submodels share.
    """
    return max(1, layers // 3), max(1, slices // 4)
