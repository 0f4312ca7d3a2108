"""What a pack holds, for people and for scripts.

In: an open pack, or a part of one. Out: one JSON-able description, and the text rendered from it.
Reads the header and the resident region only; ``sti.pack.verify`` checks the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shard_tools.inspection.ranking_text import render_quality, render_ranking, render_submodels
from sti.model.fidelity import groups_of, loss_of, uniform_counts
from sti.model.manifest import FORMAT_VERSION, Manifest, Submodel
from sti.pack.header import padded
from sti.pack.index import INDEX
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import table_name
from sti.report.tables import aligned
from sti.report.wording import counted
from sti.units import format_size

_CHECKSUM_BYTES = 4


def describe(reader: PackReader) -> dict[str, Any]:
    """Everything ``sti-shard inspect --json`` prints. Sizes in bytes.

    Those of ``bytes`` are the file's; all else about weights is about the whole pack.
    """
    manifest = reader.manifest
    dims = manifest.dimensions
    return {
        "path": str(reader.path),
        "pack_id": reader.pack_id,
        "format": FORMAT_VERSION,
        "part": None if reader.part is None else reader.part._asdict(),
        "sha256": {"content": manifest.sha256.content, "index": manifest.sha256.of_index},
        "name": manifest.name,
        "architecture": manifest.architecture,
        "task": manifest.task,
        "labels": list(manifest.labels),
        "activation": manifest.activation,
        "prompts": manifest.prompts._asdict(),
        "pairs": manifest.takes_pairs,
        "licence": manifest.licence,
        "source": manifest.source,
        "generator": manifest.generator,
        "dimensions": {
            "layers": dims.layers,
            "slices": dims.slices,
            "hidden": dims.hidden,
            "max_tokens": dims.max_tokens,
            **({"embedding": manifest.embedding_size} if manifest.task == "embedding" else {}),
            "words": manifest.embeddings.rows,
        },
        "ladder": list(manifest.ladder),
        "kinds": _kinds(manifest),
        "encoder_weights": _encoder_weights(manifest),
        "bits_a_weight": _bits(manifest),
        "bytes": _sizes(reader),
        "submodels": [
            {
                "depth": item.depth,
                "width": item.width,
                "layers": list(item.layers),
                "loss": item.loss,
                "uniform": _uniform(manifest, item),
            }
            for item in manifest.submodels
        ],
        "uniform_loss": {
            str(entry["bits"]): entry["loss"] for entry in _uniform(manifest, manifest.submodels[0])
        },
        "quality": manifest.quality._asdict() if manifest.quality else None,
        "rejection": manifest.rejection._asdict() if manifest.rejection else None,
        "importance": _importance(manifest),
        "notes": manifest.notes,
    }


def _encoder_weights(manifest: Manifest) -> int:
    dims = manifest.dimensions
    return sum(kind.shard_weights for kind in manifest.kinds) * dims.layers * dims.slices


def _bits(manifest: Manifest) -> dict[str, float]:
    """Bits a weight of the outlier lists, of each plane, and of all with their checksums."""
    groups = manifest.groups
    total = {"outliers": sum(sum(group.outlier_bytes) for group in groups)}
    for number, bits in enumerate(manifest.ladder):
        total[f"plane {bits}"] = sum(
            group.slices * group.planes[number].shard_bytes for group in groups
        )
    total["checksums"] = _CHECKSUM_BYTES * sum(
        group.slices * (1 + len(group.planes)) for group in groups
    )
    total["all"] = sum(total.values())
    weights = _encoder_weights(manifest)
    return {key: round(size * 8 / weights, 3) for key, size in total.items()}


def _sizes(reader: PackReader) -> dict[str, int]:
    """Bytes of each part of the file; they add up to its size."""
    manifest, tensors = reader.manifest, reader.tensors()
    graphs = sum(tensors[name].length for name in manifest.graphs.values())
    vocabulary = sum(
        info.length for name, info in tensors.items() if name.startswith(table_name(""))
    )
    index = sum(tensors[name].length for name in INDEX)
    rows = manifest.embeddings.rows if manifest.holds_words else 0
    words = rows * manifest.embeddings.row_bytes
    held = manifest.held_groups
    outliers = sum(sum(group.outlier_bytes) for group in held)
    groups = sum(group.length for group in held)
    blocks = sum(tensors[name].length for name in {group.tensor for group in held})
    after_header = manifest.resident.length + padded(words) + blocks
    return {
        "header": reader.file_bytes - after_header,
        "graphs": graphs,
        "vocabulary": vocabulary,
        "index": index,
        "other residents": manifest.resident.length - graphs - vocabulary - index,
        "words": words,
        "outliers": outliers,
        "planes": groups - outliers,
        "padding": padded(words) - words + blocks - groups,
        "file": reader.file_bytes,
    }


def _uniform(manifest: Manifest, submodel: Submodel) -> list[dict[str, float]]:
    """What to expect of a submodel with every shard at one fidelity, lowest first."""
    groups = groups_of(manifest, submodel)
    found = []
    for bits in manifest.ladder:
        counts = [uniform_counts(group, submodel.width, bits) for group in groups]
        loss = loss_of(submodel, groups, counts)
        entry: dict[str, float] = {"bits": bits, "loss": loss}
        if manifest.quality is not None:
            entry[manifest.quality.metric] = manifest.quality.estimate(loss).value
        found.append(entry)
    return found


def _kinds(manifest: Manifest) -> list[dict[str, Any]]:
    """How the blocks of each kind are divided."""
    return [
        {
            "kind": kind.name,
            "slice_unit": kind.slice_unit,
            "shard_weights": kind.shard_weights,
            "groups": list(kind.groups),
        }
        for kind in manifest.kinds
    ]


def _importance(manifest: Manifest) -> list[dict[str, Any]]:
    """Each block's expected loss at the lowest fidelity, and how its slices share it."""
    found = []
    for layer in range(manifest.dimensions.layers):
        for kind in manifest.kinds:
            worth = [
                sum(plane.gains[number] for plane in group.planes[1:])
                for group in manifest.block(layer, kind.name)
                for number in range(group.slices)
            ]
            found.append(
                {
                    "layer": layer,
                    "kind": kind.name,
                    "loss_at_lowest": sum(worth),
                    "most_important": max(range(len(worth)), key=worth.__getitem__),
                    "most": max(worth),
                    "least_important": min(range(len(worth)), key=worth.__getitem__),
                    "least": min(worth),
                }
            )
    return found


def render(description: dict[str, Any], manifest: Manifest) -> str:
    """The description of a pack as text for a terminal."""
    dims = description["dimensions"]
    labels = description["labels"]
    lines = [
        f"{description['name']}  ({description['path']}, pack {description['pack_id']})",
        _part(manifest),
        f"  {description['task']}, {description['architecture']}: "
        f"{counted(dims['layers'], 'layer')}, {counted(dims['slices'], 'slice')}, "
        f"width {dims['hidden']}, at most {counted(dims['max_tokens'], 'token')}, "
        f"{counted(dims['words'], 'token embedding')}",
        f"  answers: {_answers(description)}",
        f"  labels: {_listed(labels)}" if labels else "",
        f"  prompts: {_prompts(manifest)}" if manifest.prompts.texts else "",
        f"  licence: {description['licence'] or 'not stated'}",
        f"  source: {description['source']}" if description["source"] else "",
        f"  fidelities: {', '.join(map(str, description['ladder']))} bits",
        f"  slice groups: {'; '.join(map(_grouped, description['kinds']))}",
        f"  format {description['format']}, content {description['sha256']['content']}",
    ]
    parts = [line for line in lines if line]
    total = description["bytes"]["file"]
    sizes = [
        (name, format_size(size), f"{size / total:.1%}")
        for name, size in description["bytes"].items()
    ]
    bits = [(name, f"{value:.3f}") for name, value in description["bits_a_weight"].items()]
    ranks = [
        (
            f"{item['layer']} {item['kind']}",
            f"{item['loss_at_lowest']:.3g}",
            f"{item['most']:.3g}",
            str(item["most_important"]),
            f"{item['least']:.3g}",
            str(item["least_important"]),
        )
        for item in description["importance"]
    ]
    lowest = description["ladder"][0]
    parts += ["", aligned(("part", "size", "share"), sizes)]
    parts += [aligned(("encoder", "bits a weight"), bits)]
    quality = manifest.quality
    metric = quality.metric if quality else None
    parts += [render_submodels(description["submodels"], metric)]
    if quality or manifest.rejection:
        parts += [render_quality(quality, manifest.rejection)]
    header = ("block", f"loss at {lowest} bits", "most", "slice", "least", "slice")
    parts += [aligned(header, ranks)]
    ranking = render_ranking(manifest)
    return "\n".join([*parts, ranking] if ranking else parts)


def _part(manifest: Manifest) -> str:
    """Of which pack it is a part; empty for a whole one."""
    part = manifest.part
    if part is None:
        return ""
    return f"  a part: {part.words}, of pack {part.pack_id}, content {part.parent}"


def _answers(description: Mapping[str, Any]) -> str:
    """What it answers, of what."""
    size, activation = description["dimensions"].get("embedding"), description["activation"]
    count = len(description["labels"])
    what = f"{counted(size, 'number')}" if size else counted(count, "logit")
    of = "texts and pairs of texts" if description["pairs"] else "single texts"
    return f"{what}{' through a ' * bool(activation)}{activation}, of {of}"


def _prompts(manifest: Manifest) -> str:
    """The names of prompts, and which is put in front of texts."""
    texts, default = manifest.prompts
    return f"{_listed(sorted(texts))}; by default {default or 'none'}"


def _grouped(kind: Mapping[str, Any]) -> str:
    """The slices of each group of a kind's blocks."""
    return f"{kind['kind']} {' + '.join(map(str, kind['groups']))}"


def _listed(labels: list[str], most: int = 8) -> str:
    shown = ", ".join(labels[:most])
    return shown if len(labels) <= most else f"{shown}, ... ({len(labels)})"
