"""Hostile packs whose header does harm: JSON that is none or too much, and the table of tensors.

In: the parts of a sound pack, a source of random numbers. Out: the parts changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from benchmarks.security_harms import EITHER, REFUSED, SAME, Kind
from benchmarks.security_packs import PackParts


def _unknown_member(parts: PackParts, rng: Random) -> None:
    place = rng.choice((parts.manifest, parts.manifest["words"], parts.manifest["kinds"][0]))
    place[f"x-{rng.randrange(1000)}"] = rng.choice((1, None, "text", [1, 2], {"a": {"b": []}}))


def _bomb(parts: PackParts, rng: Random) -> None:
    item = rng.choice(("[]", "{}", "0", '""', "[[]]", '{"a":0}'))
    body = ",".join([item] * (rng.randrange(1_500_000, 3_500_000) // (len(item) + 1)))
    member = rng.choice(("notes", "x", "graph_spec"))
    parts.manifest.pop(member, None)
    parts.manifest_edits.append(lambda text: f'{text[:-1]},"{member}":{{"x":[{body}]}}}}')


def _names_bomb(parts: PackParts, rng: Random) -> None:
    count = rng.randrange(100_000, 250_000)
    parts.manifest["x"] = {str(number): 0 for number in range(count)}


def _nesting(parts: PackParts, rng: Random) -> None:
    depth, (begin, end) = rng.randrange(100, 200_000), rng.choice((("[", "]"), ('{"a":', "}")))
    body = begin * depth + rng.choice(("1", "")) * (begin == "[") + "0" * (begin != "[")
    body += end * depth
    if rng.random() < 0.5:
        parts.manifest_edits.append(lambda text: f'{text[:-1]},"x":{body}}}')
    else:
        parts.header_edits.append(lambda text: f'{text[:-1]},"x":{body}}}')


def _manifest_twice(parts: PackParts, rng: Random) -> None:
    name = rng.choice(("words", "dimensions", "labels", "graphs", "task", "format", "kinds"))
    value = rng.choice(("1", "[]", "{}", '"embedding"'))
    if rng.random() < 0.5:
        parts.manifest_edits.append(lambda text: f'{text[:-1]},"{name}":{value}}}')
    else:
        inner = rng.choice(('"layers":', '"rows":', '"row_bytes":', '"max_tokens":'))
        parts.manifest_edits.append(lambda text: text.replace(inner, f"{inner}1,{inner}", 1))


def _tensor_twice(parts: PackParts, rng: Random) -> None:
    name = rng.choice((*parts.residents, "words", *parts.blocks))
    entry = f'"{name}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    parts.header_edits.append(lambda text: f"{text[:-1]},{entry}}}")


def _odd_number(parts: PackParts, rng: Random) -> None:
    names = ("rows", "hidden", "layers", "slices", "max_tokens", "depth", "width", "loss", "length")
    name = rng.choice(names)
    value = rng.choice(("1e999", "-1e999", "NaN", "Infinity", "9" * 5000, "1" + "0" * 400, "-0.5"))

    def edit(text: str) -> str:
        start = text.index(f'"{name}":') + len(name) + 3
        end = min(text.index(char, start) for char in ",}" if char in text[start:])
        return text[:start] + value + text[end:]

    parts.manifest_edits.append(edit)


def _text_damage(parts: PackParts, rng: Random) -> None:
    def edit(text: str) -> str:
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(text))
            byte = rng.choice('{}[]",:0-eE\\u\x00\x1b\ud800 tn')
            text = text[:at] + byte + text[at + rng.randrange(3) :]
        return text[: rng.randrange(len(text))] if rng.random() < 0.2 else text

    parts.manifest_edits.append(edit)


def _header_text_damage(parts: PackParts, rng: Random) -> None:
    def edit(text: str) -> str:
        at = rng.randrange(60, len(text))
        return text[:at] + rng.choice('{}[]",:0-e\\') + text[at + rng.randrange(3) :]

    parts.header_edits.append(edit)


def _entry(parts: PackParts, rng: Random) -> None:
    """An entry of the tensor table that is none, or of other bytes."""
    name = rng.choice((*parts.residents, "words", *parts.blocks))
    odd = rng.choice((None, -1, 1 << 63, 1 << 80, "1", [], {}, True, 0.5, [1 << 40] * 9, [-1, 5]))

    def change(table: dict[str, Any]) -> None:
        if rng.random() < 0.2:
            table[name] = odd
        else:
            table[name][rng.choice(("dtype", "shape", "data_offsets"))] = odd

    parts.table_edits.append(change)


def _offsets(parts: PackParts, rng: Random) -> None:
    names = [name for name, tensor in parts.residents.items() if tensor.data]
    one, other = rng.sample([*names, "words", *parts.blocks], 2)

    def change(table: dict[str, Any]) -> None:
        if rng.random() < 0.5:
            table[one]["data_offsets"], table[other]["data_offsets"] = (
                table[other]["data_offsets"],
                table[one]["data_offsets"],
            )
        else:
            shift = rng.choice((-8, 8, 16384, 1 << 40))
            table[one]["data_offsets"] = [at + shift for at in table[one]["data_offsets"]]

    parts.table_edits.append(change)


def _other_order(parts: PackParts, rng: Random) -> None:
    names = [name for name, tensor in parts.residents.items() if tensor.data]
    moved = rng.choice((*names[:-1], "words", *list(parts.blocks)[:-1]))
    parts.table_edits.append(lambda table: table.__setitem__(moved, table.pop(moved)))


def _no_tensor(parts: PackParts, rng: Random) -> None:
    if rng.random() < 0.3:
        parts.blocks.pop(rng.choice(list(parts.blocks)))
    else:
        parts.residents.pop(rng.choice(list(parts.residents)))


def _another_block(parts: PackParts, rng: Random) -> None:
    name = rng.choice(("block.9.ffn", "block.0.ffn2", "more", "block.-1.attention"))
    parts.blocks[name] = bytes(rng.choice((0, 16384)))


def _version(parts: PackParts, rng: Random) -> None:
    parts.manifest["format"] = rng.choice((0, 1, 3, -1, 2**70, "2", 2.0, True, None))


def _requires(parts: PackParts, rng: Random) -> None:
    parts.manifest["requires"] = rng.choice(
        ([], ["joined", "part"], ["joined", "\x1b[2J"], "joined", None, [1], ["x" * 100_000])
    )


def _resident_length(parts: PackParts, rng: Random) -> None:
    parts.resident_length = rng.choice((1, 16384, 10**12, 1 << 63))


HEADER: Mapping[str, Kind] = {
    "unknown members": Kind(SAME, _unknown_member),
    "JSON of a million values": Kind(REFUSED, _bomb),
    "JSON of many names": Kind(REFUSED, _names_bomb),
    "JSON nested deep": Kind(REFUSED, _nesting),
    "a member twice": Kind(REFUSED, _manifest_twice),
    "a tensor twice": Kind(REFUSED, _tensor_twice),
    "numbers that are none": Kind(REFUSED, _odd_number),
    "damaged manifest": Kind(EITHER, _text_damage),
    "damaged header": Kind(EITHER, _header_text_damage),
    "entries of the table": Kind(REFUSED, _entry),
    "offsets of the table": Kind(REFUSED, _offsets),
    "order of the table": Kind(REFUSED, _other_order),
    "tensors left out": Kind(REFUSED, _no_tensor),
    "blocks too many": Kind(REFUSED, _another_block),
    "format": Kind(REFUSED, _version),
    "features": Kind(REFUSED, _requires),
    "length of the residents": Kind(REFUSED, _resident_length),
}
"""By name."""
