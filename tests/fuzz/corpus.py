"""The corpus: for each target the inputs that reach most of its reader, and those of old findings.

In: inputs. Out: small archives beside this module, the same bytes for the same inputs. Knows no
reader.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 6000
"""Of an archive."""


def stored(name: str) -> list[bytes]:
    """The inputs kept for a target; none where there is no archive."""
    path = _archive(name)
    if not path.exists():
        return []
    with tarfile.open(path, "r:xz") as archive:
        members = [archive.extractfile(member) for member in archive]
        return [member.read() for member in members if member is not None]


def store(name: str, inputs: Iterable[bytes], always: Collection[bytes] = ()) -> int:
    """Keep inputs of a target in its archive, in place of what it holds.

    Args:
        inputs: those that come first are kept first, as far as there is room.
        always: those of findings, for which there always is.

    Returns:
        How many are kept.
    """
    kept = list(dict.fromkeys(always))
    more = [item for item in dict.fromkeys(inputs) if item not in kept]
    least, most = 0, len(more)
    while least < most:  # the archive grows with each of them
        middle = -(-(least + most) // 2)
        if len(_packed([*kept, *more[:middle]])) <= MOST_BYTES:
            least = middle
        else:
            most = middle - 1
    found = [*kept, *more[:least]]
    CORPUS.mkdir(exist_ok=True)
    _archive(name).write_bytes(_packed(found))
    return len(found)


def _archive(name: str) -> Path:
    return CORPUS / f"{name}.tar.xz"


def _packed(inputs: Iterable[bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for data in inputs:
            member = tarfile.TarInfo(hashlib.sha256(data).hexdigest()[:12])
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return lzma.compress(stream.getvalue(), preset=9 | lzma.PRESET_EXTREME)
