"""Hostile packs whose manifest does harm: fields that are others, texts, and sizes that do not fit.

In: the parts of a sound pack, a source of random numbers. Out: the parts changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import numpy as np

from benchmarks.security_harms import EITHER, REFUSED, Harm, Kind
from benchmarks.security_packs import PackParts, Tensor

_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 1 << 31, 1 << 63, 10**18, 10**400, 0.5, -1.5, 1e300),
    *("", "x", "\x1b[31m", "x" * 5000, [], {}, [0], [[]], [None], {"a": 1}, [1 << 40] * 3),
)


_MEMBERS = (
    *("name", "architecture", "task", "licence", "source", "generator", "requires", "dimensions"),
    *("ladder", "book", "tokenizer", "labels", "graphs", "kinds", "words", "submodels"),
    *("resident", "sha256", "graph_spec", "notes"),
)


def _field(member: str) -> Harm:
    """A random change somewhere inside of a member."""

    def harm(parts: PackParts, rng: Random) -> None:
        holder, key = parts.manifest, member
        while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.75:
            holder = holder[key]
            key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        choice = rng.random()
        if choice < 0.15:
            del holder[key]
        elif choice < 0.25 and isinstance(holder, list):
            holder.append(holder[key])
        elif choice < 0.35 and isinstance(holder[key], int | float):
            holder[key] = holder[key] * rng.choice((-1, 2, 10, 1000, 0.5)) + rng.choice((0, 1))
        else:
            holder[key] = rng.choice(_ODD)
        if member == "resident":
            parts.as_stated = True

    return harm


def _labels(parts: PackParts, rng: Random) -> None:
    labels = list(parts.manifest["labels"])
    if not labels:
        parts.manifest["labels"] = rng.choice((["a"], ["a"] * 32, [f"{n}" for n in range(32)]))
        return
    choice = rng.randrange(5)
    if choice == 0:
        del labels[rng.randrange(len(labels)) :]
    elif choice == 1:
        labels += [f"more-{number}" for number in range(rng.choice((1, 100, 40_000)))]
    elif choice == 2:
        labels[rng.randrange(len(labels))] = ""
    elif choice == 3:
        labels = [labels[-1], *labels[1:]] if len(labels) > 1 else labels * 2
    else:
        labels = []
    parts.manifest["labels"] = labels


def _rejection_label(parts: PackParts, rng: Random) -> None:
    manifest = parts.manifest
    labels = manifest["labels"] or ["a"]
    manifest["rejection"] = {
        "label": rng.choice((labels[0], labels[-1], "", "\x1b[31mno")),
        "temperature": 1.0,
        "accepted": 0.9,
        "losses": [0.0],
        "thresholds": [0.5],
    }


def _prompts(parts: PackParts, rng: Random) -> None:
    texts: object = {"query": "query: "}
    default: object = "query"
    choice = rng.randrange(6)
    if choice == 0:
        default = rng.choice(("other", None, 7))
    elif choice == 1:
        texts = {str(number): "" for number in range(1000)}
        default = "0"
    elif choice == 2:
        texts = {"query": "x" * 100_000}
    elif choice == 3:
        texts = {"query": "", f"x{rng.choice(_CONTROL)}y": ""}
    elif choice == 4:
        texts = {"query": rng.choice((7, None, ["a"]))}
    else:
        texts = rng.choice(([], 7, "query"))
    parts.manifest["prompts"] = {"texts": texts, "default": default}


def _heads(parts: PackParts, rng: Random) -> None:
    hidden = parts.manifest["dimensions"]["hidden"]
    choice = rng.randrange(4)
    if choice == 0:
        parts.manifest["dimensions"]["embedding"] = rng.choice((0, hidden + 1, 1 << 17, 10**18))
    elif choice == 1:
        parts.manifest["activation"] = rng.choice(("relu", "Sigmoid", "\x1b[31m", 7))
    elif choice == 2:
        name = rng.choice(("step8_w", "step_w", "step0_x", "step00_w"))
        parts.residents[f"head.{name}"] = Tensor.of(np.zeros((hidden, 4), np.float32))
    else:
        odd = rng.choice((np.zeros((2, 2), np.float32), np.zeros(3, np.uint8)))
        parts.residents["head.step0_b"] = Tensor.of(odd)


_CONTROL = ("\x1b[2J", "\x1b]0;x\x07", "a\nb", "\r", "\x00", "\x9b31m", "\u202e", "\u2028", "\x7f")


def _control(parts: PackParts, rng: Random) -> None:
    text = f"x{rng.choice(_CONTROL)}y"
    manifest = parts.manifest
    name = rng.choice(("name", "licence", "source", "generator", "architecture", "labels", "unit"))
    if name == "labels" and manifest["labels"]:
        manifest["labels"][rng.randrange(len(manifest["labels"]))] = text
    elif name in ("labels", "unit"):
        manifest["kinds"][0]["slice_unit"] = text
    else:
        manifest[name] = text


def _distances(parts: PackParts, rng: Random) -> None:
    """Biases that no graph takes: missing, too many, of odd shapes, other ones in each layer."""
    kind, sizes = rng.choice(parts.manifest["kinds"]), parts.manifest["dimensions"]
    kind["sliced"].append("position_bias")
    parts.manifest["requires"] = ["joined", "distances"]
    choice = rng.randrange(6)
    for layer in range(sizes["layers"] if choice else 0):
        entries = (3, 4, 4097, 3 + 2 * layer, 0)[choice - 1]
        shape = sizes["slices"], 1, entries
        values = np.zeros(shape, np.float32)
        name = f"layer.{layer}.{kind['name']}.position_bias"
        parts.residents[name] = Tensor("F32", shape, values.tobytes())


def _part(parts: PackParts, rng: Random) -> None:
    """A whole pack that says that it is a part, also of what there cannot be; or a part."""
    manifest, layers = parts.manifest, parts.manifest["dimensions"]["layers"]
    first = rng.randrange(layers)
    last = rng.randrange(first, layers)
    part: dict[str, Any] = {"parent": "0" * 64, "pack_id": "0" * 16, "first": first, "last": last}
    choice = rng.randrange(6)
    if choice == 0:
        part[rng.choice(list(part))] = rng.choice(_ODD)
    elif choice == 1:
        part["first"], part["last"] = rng.choice(((0, layers), (1, 0), (1 << 62, 1 << 62)))
    elif choice == 2:
        del part[rng.choice(list(part))]
    elif choice == 3:  # without all that lies elsewhere
        kept = {f"block.{layer}." for layer in range(first, last + 1)}
        for name in list(parts.blocks):
            if not name.startswith(tuple(kept)):
                del parts.blocks[name]
        parts.words = parts.words if first == 0 else b""
    if choice != 4:
        manifest["requires"].append("part")
    if choice != 5:
        manifest["part"] = part


def _control_names(parts: PackParts, rng: Random) -> None:
    """In what becomes part of an error's text."""
    text = f"x{rng.choice(_CONTROL)}y"
    kind = rng.choice(parts.manifest["kinds"])
    choice = rng.randrange(6)
    if choice == 0:
        kind["name"] = text
    elif choice == 1:
        kind["operands"][0]["name"] = text
    elif choice == 2:
        kind["sliced"][0] = text
    elif choice == 3:
        parts.manifest["task"] = text
    elif choice == 4:
        parts.manifest["requires"] = ["joined", text]
    else:
        parts.residents[f"\x1b{text}"] = Tensor("F32", (1,), np.float32([np.nan]).tobytes())


def _long_texts(parts: PackParts, rng: Random) -> None:
    name = rng.choice(("name", "licence", "source", "generator", "architecture"))
    parts.manifest[name] = "x" * rng.randrange(5000, 3_000_000)


def _max_tokens(parts: PackParts, rng: Random) -> None:
    most = rng.choice((10**6, 10**18, 1 << 63, parts.manifest["dimensions"]["max_tokens"] + 1))
    places = [parts.manifest["dimensions"], parts.manifest["tokenizer"]]
    for place in rng.choice((places, places[:1], places[1:])):
        place["max_tokens"] = most


def _many_blocks(parts: PackParts, rng: Random) -> None:
    """Numbers that would make an index of gigabytes."""
    dims = parts.manifest["dimensions"]
    name, value = rng.choice(
        (("layers", 10**6), ("layers", 10**12), ("slices", 65536), ("slices", 65537))
    )
    dims[name] = value
    parts.manifest["submodels"] = [
        {
            "depth": dims["layers"],
            "width": dims["slices"],
            "layers": list(range(min(dims["layers"], 1000))),
            "loss": 0.0,
        }
    ]
    if name == "slices":
        for kind in parts.manifest["kinds"]:
            kind["groups"] = rng.choice(([value], [1] * value))
        blocks = dims["layers"] * len(parts.manifest["kinds"])
        planes = len(parts.manifest["ladder"])
        if rng.random() < 0.5 and value * blocks * planes < 4_000_000:
            parts.residents |= _empty_index(blocks, planes, value)


def _empty_index(blocks: int, planes: int, slices: int) -> dict[str, Tensor]:
    order = np.zeros((blocks, planes, slices), np.uint16)
    return {
        "index.outlier_bytes": Tensor.of(np.full((blocks, slices), 4, np.uint32)),
        "index.checksums": Tensor.of(np.zeros((blocks, planes + 1, slices), np.uint32)),
        "index.orders": Tensor.of(order),
        "index.gains": Tensor.of(np.zeros((blocks, planes, slices), np.float32)),
    }


def _wide_hidden(parts: PackParts, rng: Random) -> None:
    value = rng.choice((0, 2, 31, 1 << 20, 10**9))
    parts.manifest["dimensions"]["hidden"] = value
    if rng.random() < 0.5:
        parts.manifest["words"]["hidden"] = value


def _huge_operand(parts: PackParts, rng: Random) -> None:
    operand = rng.choice(rng.choice(parts.manifest["kinds"])["operands"])
    big = rng.choice((1 << 31, 1 << 20, 10**9, 8))
    operand["shape"] = rng.choice(([big, 8], [8, big], [big] * 8, [1, big, big], [big]))


def _joints(parts: PackParts, rng: Random) -> None:
    operand = rng.choice(rng.choice(parts.manifest["kinds"])["operands"])
    if rng.random() < 0.5:
        operand["joined"] = "rows" if operand["joined"] == "columns" else "columns"
    else:
        operand["shape"] = operand["shape"][::-1]


def _sides(parts: PackParts, rng: Random) -> None:
    kind = rng.choice(parts.manifest["kinds"])
    side = {"name": rng.choice(("q", "up", "down", "x", "o")), "channels_per_slice": 0}
    if rng.random() < 0.5 and kind["side"]:
        kind["side"][0]["channels_per_slice"] = rng.choice((0, 1, 10**9, 7))
    else:
        kind["side"].append(side)


def _many_submodels(parts: PackParts, rng: Random) -> None:
    first = parts.manifest["submodels"][0]
    parts.manifest["submodels"] = [first] * rng.choice((2, 1000, 20_000))


def _submodel_layers(parts: PackParts, rng: Random) -> None:
    one = rng.choice(parts.manifest["submodels"])
    one["layers"] = rng.choice(([], [0] * 3, [9, 10, 11], [-1, 0, 1], [10**18], [2, 1, 0]))


def _absurd_losses(parts: PackParts, rng: Random) -> None:
    one = parts.manifest["submodels"][0]
    one |= {"loss": 0.0, "missing": [0.0, 1e-300], "losses": [0.0, rng.choice((1e308, 1e300))]}


def _codebook(parts: PackParts, rng: Random) -> None:
    """Any values are a codebook's."""
    for values in parts.manifest["book"]["values"].values():
        values[:] = [rng.randrange(-128, 128) for _ in values]


MANIFEST: Mapping[str, Kind] = {
    **{f"field: {member}": Kind(EITHER, _field(member)) for member in _MEMBERS},
    "labels": Kind(REFUSED, _labels),
    "prompts": Kind(REFUSED, _prompts),
    "heads of other sizes": Kind(REFUSED, _heads),
    "label of a rejection": Kind(REFUSED, _rejection_label),
    "control characters": Kind(REFUSED, _control),
    "control characters in names": Kind(REFUSED, _control_names),
    "texts of megabytes": Kind(REFUSED, _long_texts),
    "token limit": Kind(REFUSED, _max_tokens),
    "layers and slices beyond": Kind(REFUSED, _many_blocks),
    "operands beyond": Kind(REFUSED, _huge_operand),
    "operands of other forms": Kind(EITHER, _joints),
    "biases by distance": Kind(REFUSED, _distances),
    "parts": Kind(REFUSED, _part),
    "side inputs": Kind(REFUSED, _sides),
    "submodels by the thousand": Kind(REFUSED, _many_submodels),
    "layers of submodels": Kind(REFUSED, _submodel_layers),
    "losses beyond": Kind(REFUSED, _absurd_losses),
    "codebooks of other values": Kind(EITHER, _codebook),
    "hidden size": Kind(REFUSED, _wide_hidden),
}
"""By name."""
