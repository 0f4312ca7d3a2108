"""Small Unigram tokenizers as ``tokenizer.json`` has them: their pipelines, pieces and scores."""

from __future__ import annotations

import base64
from typing import Any

from tests.support.charsmaps import charsmap

MAP = {
    **{"ﬁ": "fi", "½": "1\u20442", "ﷺ": "ab la", "\t": " ", "\r": " ", "\n": " ", "\u3000": " "},
    **{"\x01": "", "e\u0301": "é", "™": "TM", "\u00a8": " \u0308", "\x1e": "", "\uff21": "A"},
}
PIECES = [
    *(("<unk>", 0.0), ("<s>", 0.0), ("▁", -2.5), ("▁a", -3.0), ("a", -4.0), ("b", -4.25)),
    *(("ab", -7.5), ("▁ab", -6.0), ("abc", -8.0), ("c", -4.5), ("bc", -7.0), ("é", -5.0)),
    *(("fi", -6.5), ("1", -5.5), ("日本", -6.25), ("日", -6.75), ("本語", -7.25), ("TM", -7.0)),
    *(("▁a▁b", -6.0), ("la", -5.25), ("l", -6.0), ("A", -6.5), ('"', -6.125), ("aa", -8.0)),
]
BYTES = [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]


def precompiled(replacements: dict[str, str] = MAP) -> dict[str, Any]:
    data = base64.b64encode(charsmap(replacements)).decode()
    return {"type": "Precompiled", "precompiled_charsmap": data}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def metaspace(prepend: str = "always", *, split: bool = True) -> dict[str, Any]:
    return {
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend, "split": split
    }  # fmt: skip


def after_split(prepend: str) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace(prepend)]}


TWO = replace({"Regex": " {2,}"}, " ")
STRIP = {"type": "Strip", "strip_left": True, "strip_right": True}
PIPELINES: dict[str, tuple[Any, dict[str, Any], bool]] = {
    "xlm-r": (precompiled(), after_split("always"), False),
    "first": (sequence(precompiled(), TWO), metaspace("first"), False),
    "first, split": (precompiled(), after_split("first"), False),
    "never": (
        sequence(replace({"String": "``"}, '"'), {"type": "Lowercase"}, precompiled(), TWO),
        metaspace("never"),
        False,
    ),
    "stripped, bytes": (sequence(STRIP, precompiled(), TWO), metaspace("first", split=False), True),
    "new": (
        sequence(
            precompiled(),
            replace({"Regex": r"\A +| +\z"}, ""),
            TWO,
            replace({"String": " "}, "▁"),
            replace({"Regex": "\\A▁"}, "▁▁"),
        ),
        metaspace(split=False),
        False,
    ),
    "plain": (None, metaspace(), False),
    "lower case first": (
        sequence({"type": "Lowercase"}, precompiled({"a": "\u3000", "b": ""})),
        after_split("first"),
        False,
    ),
    "lower case, less": (
        sequence({"type": "Lowercase"}, replace({"String": "a"}, "")),
        metaspace("first"),
        False,
    ),
}


def document(name: str = "xlm-r", **model: Any) -> dict[str, Any]:
    normalizer, pre_tokenizer, fallback = PIPELINES[name]
    pieces = [*PIECES, *(BYTES if fallback else [])]
    own = {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [list(piece) for piece in pieces],
        "byte_fallback": fallback,
    }
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "model": {**own, **model},
    }
