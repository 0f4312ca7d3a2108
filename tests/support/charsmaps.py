"""Small precompiled maps of characters, as SentencePiece writes them, made for tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

_BLOCK = 256
_VALUE = 1 << 31
_HAS_VALUE = 1 << 8


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """The bytes of a map: the trie's size, its units, and the replacements.

    Args:
        replacements: what replaces what; no key is empty or holds a zero.
    """
    values: dict[bytes, int] = {}
    text = b""
    for key, new in replacements.items():
        values[key.encode()] = len(text)
        text += new.encode() + b"\0"
    nodes = sorted({key[:length] for key in values for length in range(len(key) + 1)})
    # Every node has a block of its own for what follows it: wasteful, and simple.
    blocks = {node: (index + 1) * _BLOCK for index, node in enumerate(nodes)}
    units = np.zeros((len(nodes) + 1) * _BLOCK, np.uint32)
    units[0] = blocks[b""] << 10
    for node in nodes[1:]:
        at = blocks[node[:-1]] ^ node[-1]
        units[at] = (at ^ blocks[node]) << 10 | node[-1] | _HAS_VALUE * (node in values)
    for key, value in values.items():
        units[blocks[key]] = _VALUE | value
    return units.nbytes.to_bytes(4, "little") + units.astype("<u4").tobytes() + (text or b"\0")
