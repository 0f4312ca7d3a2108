"""Rewriting a pack with other gains, plane orders, graphs or facts about itself, without decoding.

In: an open pack, the manifest it is to have, and perhaps other graphs. Out: a pack in which each
plane's shards lie in the order of the new manifest and are the same to the bit, as are the
embedding table and the residents but for graphs and staircases that were replaced.
Every byte that is copied is compared with its checksum (``stored``). Knows nothing of how gains are
measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shard_tools.packing.encoding import Gains, falling, with_gains
from shard_tools.packing.pack_writer import (
    PackWriter,
    graph_residents,
    graph_tensor,
    replacing_pack,
)
from shard_tools.packing.stored import damaged, stored_group, stored_residents, stored_words
from sti.model.manifest import Manifest, SliceGroup
from sti.pack.header import STAIRCASES
from sti.pack.pack_reader import PackReader


def ranked_groups(groups: Sequence[SliceGroup], gains: Gains) -> tuple[SliceGroup, ...]:
    """The groups with these gains, every plane but the first in the order of its own, most first.

    The first plane keeps the slice order: it is the order that width cuts.
    """
    found = []
    for group in with_gains(groups, gains):
        first, *others = group.planes
        planes = [plane._replace(order=tuple(falling(plane.gains))) for plane in others]
        found.append(group._replace(planes=(first, *planes)))
    return tuple(found)


def repack(
    reader: PackReader,
    output: Path,
    manifest: Manifest,
    *,
    graphs: Mapping[str, bytes] | None = None,
    staircases: bytes | None = None,
) -> Manifest:
    """Write the pack with another manifest.

    Args:
        reader: the pack to take everything from.
        output: the new pack; may be the same file, which is replaced when all went well.
        manifest: the pack's own but for gains, orders, submodels, quality, rejection and notes.
            With ``graphs`` also but for what says how these are fed (``requires``, how a kind's
            operands are joined); its own list of graphs is replaced.
        graphs: ONNX models by name, which take the place of the pack's. The content is another one
            then, so its hash is not compared with the pack's; without them it is.
        staircases: of the new manifest, as ``Staircases.to_bytes`` gives them. Without them the
            pack gets none: its own may be of another ranking.

    Returns:
        The manifest as written.

    Raises:
        PackCorruptError: the pack is damaged; names the part.
        InputError, StorageError: ``output`` cannot be written.
    """
    old = reader.manifest
    with replacing_pack(output, reader.file_bytes) as target:
        residents = stored_residents(reader)
        if graphs is not None:
            manifest = manifest._replace(graphs={name: graph_tensor(name) for name in graphs})
            residents = _with_graphs(residents, {*old.graphs.values()}, graphs)
        if staircases is not None:
            residents[STAIRCASES] = np.frombuffer(staircases, np.uint8)
        writer = PackWriter(target, manifest._replace(groups=()), residents)
        writer.words(stored_words(reader))
        for before, after in zip(old.groups, manifest.groups, strict=True):
            orders = [plane.order for plane in after.planes]
            writer.group(stored_group(reader, before, orders))
        written = writer.finish(manifest)
        if graphs is None and written.sha256.content != old.sha256.content:
            raise damaged(reader, "the content as a whole")
        return written


def _with_graphs(
    residents: Mapping[str, NDArray[Any]], old: Collection[str], graphs: Mapping[str, bytes]
) -> dict[str, NDArray[Any]]:
    """The residents with other graphs in the place of the old ones."""
    made, found = graph_residents(graphs), dict[str, NDArray[Any]]()
    for name, array in residents.items():
        if name in old:
            found |= made
        elif name not in made:
            found[name] = array
    return found
