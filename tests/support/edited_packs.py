"""Packs with another manifest: what ranking would have measured, written by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shard_tools.packing.repack import repack
from sti.model.manifest import Manifest
from sti.pack.pack_reader import PackReader


def edited(source: Path, path: Path, change: Callable[[Manifest], Manifest]) -> Path:
    """Write ``source`` to ``path`` with a changed manifest, its weights as they are."""
    with PackReader.open(source) as reader:
        repack(reader, path, change(reader.manifest))
    return path
