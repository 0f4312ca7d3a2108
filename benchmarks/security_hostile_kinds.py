"""Packs that mean harm, by kind: what is changed in a sound one before its checksums are made good.

In: the parts of a sound pack, a source of random numbers. Out: the parts changed, and what must
come of it. Knows nothing of processes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

import numpy as np

from benchmarks.security_packs import PackParts, Tensor
from sti.codec.word_rows import row_checksum
from sti.text.vocabulary_index import VocabularyIndex, make_index

Harm = Callable[[PackParts, Random], object]

REFUSED, SAME, EITHER = "refused", "the same answer", "refused or an answer"
UNUSED = "refused or the same answer"
"""What must come of a pack: some are another model, which a stranger may ship; of some, what means
harm is of no use on this machine, which never touches it."""


class Kind(NamedTuple):
    """One kind of hostile pack."""

    due: str
    harm: Harm


# The header and its JSON.


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


# Fields of the manifest.

_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 7, 1 << 31, 1 << 63, 10**18, 10**400, 0.5, -1.5, 1e300),
    *("", "x", "\x1b[31m", "x" * 5000, [], {}, [0], [[]], [None], {"a": 1}, [1 << 40] * 3),
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


# Parts against one another.


def _no_graph(parts: PackParts, rng: Random) -> None:
    name = rng.choice(list(parts.manifest["graphs"]))
    tensor = parts.manifest["graphs"].pop(name)
    if rng.random() < 0.5:
        del parts.residents[tensor]


def _unknown_graph(parts: PackParts, rng: Random) -> None:
    graphs = parts.manifest["graphs"]
    name = rng.choice(("decoder", "attention.s4", "\x1b]0;x\x07", "", "ffn_masked.s8", "x" * 9999))
    graphs[name] = rng.choice(list(graphs.values()))


def _swapped_graphs(parts: PackParts, rng: Random) -> None:
    graphs = parts.manifest["graphs"]
    base = {name: name.replace("_masked", "").rpartition(".")[0] or name for name in graphs}
    one = rng.choice(list(graphs))
    other = rng.choice([name for name in graphs if base[name] != base[one]])
    graphs[one] = graphs[other]


def _graph_bytes(parts: PackParts, rng: Random) -> None:
    name = rng.choice(list(parts.manifest["graphs"].values()))
    data = bytearray(parts.residents[name].data)
    for _ in range(rng.randrange(1, 9)):
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    found = rng.choice((bytes(data), data[: rng.randrange(len(data))], b"", rng.randbytes(500)))
    parts.residents[name] = Tensor("U8", (len(found),), bytes(found))


def _set_vocabulary(parts: PackParts, blob: bytes, index: VocabularyIndex | None = None) -> None:
    index = index or make_index(blob)
    parts.residents["tokenizer.vocab"] = Tensor("U8", (len(blob),), blob)
    for name, array in zip(index._fields, index, strict=True):
        parts.residents[f"tokenizer.{name}"] = Tensor.of(array)


def _index_of(parts: PackParts) -> VocabularyIndex:
    return VocabularyIndex(
        *(parts.residents[f"tokenizer.{name}"].array for name in VocabularyIndex._fields)
    )


def _more_words(parts: PackParts, rng: Random) -> None:
    blob = parts.residents["tokenizer.vocab"].data
    rows = parts.manifest["words"]["rows"]
    more = [b"word-%d" % number for number in range(rng.choice((1, 5, rows)))]
    _set_vocabulary(parts, b"\n".join((blob, *more)))


def _fewer_rows(parts: PackParts, rng: Random) -> None:
    words = parts.manifest["words"]
    words["rows"] = rng.randrange(1, words["rows"])
    size = words["rows"] * words["row_bytes"]
    size += -size % 16384
    parts.words = parts.words[:size]


def _vocabulary_index(parts: PackParts, rng: Random) -> None:
    name = f"tokenizer.{rng.choice(VocabularyIndex._fields)}"

    def change(array: np.ndarray[Any, Any]) -> None:
        for _ in range(rng.choice((1, 3, len(array)))):
            array[rng.randrange(len(array))] = rng.choice((0, 1, len(array), 2**32 - 1))

    parts.change(name, change)


def _full_bucket(parts: PackParts, rng: Random) -> None:
    words = [b"[PAD]", b"[UNK]", b"[CLS]", b"[SEP]", b"[MASK]"]
    words += [b"%d" % number for number in range(20_000)]
    blob = b"\n".join(words)
    index = make_index(blob)
    at = rng.randrange(1, len(index.buckets) - 1)
    index.buckets[:at], index.buckets[at:] = 0, len(words)
    _set_vocabulary(parts, blob, index)
    row = parts.manifest["words"]
    row["rows"] = len(words)
    size = len(words) * row["row_bytes"]
    parts.words = bytes(size + -size % 16384)


def _long_word(parts: PackParts, rng: Random) -> None:
    blob = parts.residents["tokenizer.vocab"].data
    lines = blob.split(b"\n")
    lines[-1] = b"a" * rng.choice((2000, 100_000))
    _set_vocabulary(parts, b"\n".join(lines))


def _special_tokens(parts: PackParts, rng: Random) -> None:
    spec = parts.manifest["tokenizer"]
    named = ("unk_token", "cls_token", "sep_token", "pad_token")
    choice = rng.randrange(4)
    if choice == 0:
        one, other = rng.sample(named, 2)
        spec[one] = spec[other]
    elif choice == 1:
        spec[rng.choice(named)] = rng.choice(("", "[NONE]", "\x1b[31m", "x" * 100_000))
    elif choice == 2:
        spec["special_tokens"] = [f"[{number}]" for number in range(rng.choice((5, 50_000)))]
    else:
        spec["special_tokens"] = [*spec["special_tokens"], rng.choice(spec["special_tokens"])]


def _unknown_setting(parts: PackParts, rng: Random) -> None:
    name = rng.choice(("strip", "lstrip", "\x1b[2J", "x" * 5000, "model"))
    parts.manifest["tokenizer"][name] = rng.choice((True, 1, "x", None))


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
        labels[0] = labels[-1]
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


def _floats_of(parts: PackParts) -> list[str]:
    return [
        name
        for name, tensor in parts.residents.items()
        if tensor.dtype in ("F32", "F16") and tensor.data
    ]


def _not_finite(parts: PackParts, rng: Random) -> None:
    def change(array: np.ndarray[Any, Any]) -> None:
        flat = array.reshape(-1)
        value = rng.choice((np.nan, np.inf, -np.inf))
        if rng.random() < 0.5:
            flat[rng.randrange(len(flat))] = value
        else:
            flat[:] = value

    parts.change(rng.choice(_floats_of(parts)), change)


def _absurd(parts: PackParts, rng: Random) -> None:
    names = [name for name in _floats_of(parts) if parts.residents[name].dtype == "F32"]
    parts.change(rng.choice(names), lambda array: array.fill(rng.choice((3e38, -3e38, 1e20))))


def _other_floats(parts: PackParts, rng: Random) -> None:
    """Other finite weights are another model, however odd."""
    noise = np.random.default_rng(rng.randrange(1 << 30))

    def change(array: np.ndarray[Any, Any]) -> None:
        largest = 1e4 if array.dtype == np.float16 else rng.choice((1.0, 1e6, 1e14))
        array[...] = (noise.standard_normal(array.shape) * largest / 10).astype(array.dtype)

    names = [name for name in _floats_of(parts) if name != "index.gains"]
    parts.change(rng.choice(names), change)


def _inputs_of(parts: PackParts) -> list[str]:
    return [name for name in parts.residents if name.startswith(("layer.", "embed.", "head."))]


def _other_shape(parts: PackParts, rng: Random) -> None:
    names = [name for name in _inputs_of(parts) if len(parts.residents[name].data) > 8]
    name = rng.choice(names)
    tensor = parts.residents[name]
    count = int(np.prod(tensor.shape))
    shapes = [(count, 1), (1, count), (count,), (1, 1, 1, count), tensor.shape[::-1]]
    shapes = [shape for shape in shapes if shape != tensor.shape]
    parts.residents[name] = tensor._replace(shape=rng.choice(shapes))


def _other_size(parts: PackParts, rng: Random) -> None:
    name = rng.choice([name for name in _inputs_of(parts) if parts.residents[name].data])
    array = parts.residents[name].array
    more = rng.choice((array[:-1], array[:0], np.concatenate((array, array)), array[..., :-1]))
    parts.residents[name] = Tensor.of(np.ascontiguousarray(more))


def _other_type(parts: PackParts, rng: Random) -> None:
    name = rng.choice(_inputs_of(parts))
    array = parts.residents[name].array
    types = [kind for kind in ("<f4", "<f2", "<i8", "u1", "<u4", "<u2") if array.dtype != kind]
    with np.errstate(all="ignore"):
        parts.residents[name] = Tensor.of(array.astype(rng.choice(types)))


def _index_range(parts: PackParts, rng: Random) -> None:
    names = [name for name, tensor in parts.residents.items() if tensor.dtype == "I64"]
    name = rng.choice([name for name in names if parts.residents[name].data])

    def change(array: np.ndarray[Any, Any]) -> None:
        choice = rng.randrange(4)
        if choice == 0:
            array[-1] = rng.choice((1 << 62, 10**6, -1, -(1 << 62)))
        elif choice == 1:
            array[0] = rng.choice((-1, -(1 << 62)))
        elif len(array) > 1 and choice == 2:
            array[:] = array[::-1].copy()
        else:
            array[:] = 1 << 40

    parts.change(name, change)


def _flat_index(parts: PackParts, rng: Random) -> None:
    names = [name for name, tensor in parts.residents.items() if tensor.dtype == "I64"]
    name = rng.choice(names)
    tensor = parts.residents[name]
    shapes = [(*tensor.shape, 1), (1, *tensor.shape), (1, 1, *tensor.shape)]
    parts.residents[name] = tensor._replace(shape=rng.choice(shapes))


def _gains(parts: PackParts, rng: Random) -> None:
    value = rng.choice((np.nan, np.inf, -1.0, 3e38))
    parts.change(
        "index.gains", lambda array: array.reshape(-1).__setitem__(rng.randrange(9), value)
    )


def _other_gains(parts: PackParts, rng: Random) -> None:
    """Any importance is a stranger's to state."""
    noise = np.random.default_rng(rng.randrange(1 << 30))
    scale = rng.choice((0.0, 1e-30, 1.0, 1e14))
    parts.change("index.gains", lambda a: np.copyto(a, noise.random(a.shape, np.float32) * scale))


def _orders(parts: PackParts, rng: Random) -> None:
    value = rng.choice((0, 1, 500, 65535))

    def change(array: np.ndarray[Any, Any]) -> None:
        block, plane = rng.randrange(array.shape[0]), rng.randrange(array.shape[1])
        array[block, plane] = value

    parts.change("index.orders", change)


def _outlier_lengths(parts: PackParts, rng: Random) -> None:
    value = rng.choice((0, 1, 2**32 - 1, 2**32 - 4, 1 << 20))
    parts.change(
        "index.outlier_bytes", lambda a: a.reshape(-1).__setitem__(rng.randrange(a.size), value)
    )


def _index_shape(parts: PackParts, rng: Random) -> None:
    name = rng.choice([name for name in parts.residents if name.startswith("index.")])
    tensor = parts.residents[name]
    parts.residents[name] = tensor._replace(
        shape=rng.choice((tensor.shape[::-1], (1, *tensor.shape)))
    )


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


def _words_damage(parts: PackParts, rng: Random) -> None:
    """Scales of all rows that are no finite numbers, their checksums right."""
    words = parts.manifest["words"]
    rows, size = words["rows"], words["row_bytes"]
    table = np.frombuffer(parts.words, np.uint8)[: rows * size].reshape(rows, size).copy()
    start = words["hidden"] // 2
    bits = rng.choice((0x7C00, 0xFC00, 0x7E00, 0x7C01))
    table[:, start : size - 4].view("<u2")[:] = bits
    for number, row in enumerate(table):
        row[-4:] = np.frombuffer(row_checksum(number, row[:-4]).to_bytes(4, "little"), np.uint8)
    parts.words = table.tobytes() + parts.words[rows * size :]


def _row_checksums(parts: PackParts, rng: Random) -> None:
    data = bytearray(parts.words)
    for at in range(len(data)):
        data[at] ^= rng.choice((0, 1, 128))
    parts.words = bytes(data)


def _pieces(parts: PackParts) -> Iterator[tuple[str, int, int, tuple[int, int, int]]]:
    """Block, offset, length and place in the checksums of each slice's outlier list."""
    lists = parts.residents["index.outlier_bytes"].array
    shards = {}
    for kind in parts.manifest["kinds"]:
        weights = sum(int(np.prod(item["shape"])) for item in kind["operands"])
        shards[kind["name"]] = weights * parts.manifest["ladder"][-1] // 8
    for block, name in enumerate(parts.blocks):
        kind = parts.manifest["kinds"][block % len(parts.manifest["kinds"])]
        at = first = 0
        for count in kind["groups"]:
            at += -at % 4096
            for number in range(first, first + count):
                yield name, at, int(lists[block, number]), (block, 0, number)
                at += int(lists[block, number])
            at += count * shards[kind["name"]]
            first += count


def _outlier_lists(parts: PackParts, rng: Random) -> None:
    """Lists of outliers that lead a decoder astray, their checksums right."""
    checksums = parts.residents["index.checksums"].array
    mode = rng.randrange(3)
    for name, at, length, place in list(_pieces(parts)):
        data = bytearray(parts.blocks[name])
        if mode == 0:
            made = b"\xff" * length
        elif mode == 1:
            made = (length * 5).to_bytes(4, "little") + rng.randbytes(length - 4)
        else:
            made = rng.randbytes(length)
        data[at : at + length] = made
        parts.blocks[name] = bytes(data)
        checksums[place] = zlib.crc32(made)
    parts.residents["index.checksums"] = Tensor.of(checksums)


def _piece_checksums(parts: PackParts, rng: Random) -> None:
    value = rng.randrange(1 << 32)
    parts.change("index.checksums", lambda array: array.fill(value))


def _staircases(parts: PackParts, rng: Random) -> None:
    """They are only a help: where they are wrong, others are made."""
    data = rng.choice((b"", b"stair", b"stair\x01" + rng.randbytes(400), rng.randbytes(100_000)))
    parts.residents["staircases"] = Tensor("U8", (len(data),), data)


def _resident_length(parts: PackParts, rng: Random) -> None:
    parts.resident_length = rng.choice((1, 16384, 10**12, 1 << 63))


def _wide_hidden(parts: PackParts, rng: Random) -> None:
    value = rng.choice((0, 2, 31, 1 << 20, 10**9))
    parts.manifest["dimensions"]["hidden"] = value
    if rng.random() < 0.5:
        parts.manifest["words"]["hidden"] = value


_MEMBERS = (
    *("name", "architecture", "task", "licence", "source", "generator", "requires", "dimensions"),
    *("ladder", "book", "tokenizer", "labels", "graphs", "kinds", "words", "submodels"),
    *("resident", "sha256", "graph_spec", "notes"),
)

KINDS: Mapping[str, Kind] = {
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
    **{f"field: {member}": Kind(EITHER, _field(member)) for member in _MEMBERS},
    "graphs left out": Kind(REFUSED, _no_graph),
    "graphs of no name": Kind(REFUSED, _unknown_graph),
    "graphs swapped": Kind(UNUSED, _swapped_graphs),
    "graphs damaged": Kind(EITHER, _graph_bytes),
    "more words than rows": Kind(REFUSED, _more_words),
    "fewer rows than words": Kind(REFUSED, _fewer_rows),
    "index of the vocabulary": Kind(EITHER, _vocabulary_index),
    "a bucket of all words": Kind(REFUSED, _full_bucket),
    "a word of many bytes": Kind(REFUSED, _long_word),
    "special tokens": Kind(REFUSED, _special_tokens),
    "tokenizer settings": Kind(REFUSED, _unknown_setting),
    "labels": Kind(REFUSED, _labels),
    "label of a rejection": Kind(REFUSED, _rejection_label),
    "control characters": Kind(REFUSED, _control),
    "control characters in names": Kind(REFUSED, _control_names),
    "texts of megabytes": Kind(REFUSED, _long_texts),
    "token limit": Kind(REFUSED, _max_tokens),
    "residents not finite": Kind(REFUSED, _not_finite),
    "residents absurdly large": Kind(REFUSED, _absurd),
    "residents of other values": Kind(EITHER, _other_floats),
    "residents of other shapes": Kind(REFUSED, _other_shape),
    "residents of other sizes": Kind(REFUSED, _other_size),
    "residents of other types": Kind(REFUSED, _other_type),
    "channels out of range": Kind(REFUSED, _index_range),
    "channels of other shapes": Kind(REFUSED, _flat_index),
    "gains that cannot be": Kind(REFUSED, _gains),
    "gains of other values": Kind(EITHER, _other_gains),
    "orders": Kind(REFUSED, _orders),
    "lengths of outlier lists": Kind(REFUSED, _outlier_lengths),
    "shapes of the index": Kind(REFUSED, _index_shape),
    "layers and slices beyond": Kind(REFUSED, _many_blocks),
    "operands beyond": Kind(REFUSED, _huge_operand),
    "operands of other forms": Kind(EITHER, _joints),
    "side inputs": Kind(REFUSED, _sides),
    "submodels by the thousand": Kind(REFUSED, _many_submodels),
    "layers of submodels": Kind(REFUSED, _submodel_layers),
    "losses beyond": Kind(REFUSED, _absurd_losses),
    "codebooks of other values": Kind(EITHER, _codebook),
    "word rows not finite": Kind(REFUSED, _words_damage),
    "word rows damaged": Kind(REFUSED, _row_checksums),
    "outlier lists": Kind(REFUSED, _outlier_lists),
    "checksums of pieces": Kind(REFUSED, _piece_checksums),
    "staircases": Kind(EITHER, _staircases),
    "length of the residents": Kind(REFUSED, _resident_length),
    "hidden size": Kind(REFUSED, _wide_hidden),
}
"""By name."""
