"""What a build did, or would do: told after it, or instead of it.

In: a ``Source``, its graphs' spec, the calibration texts, the tensors that nobody read. Out: a
``Summary``: a value, which puts itself into words and JSON values. Knows nothing of how packs are
made or of command lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shard_tools.architectures.base import Model
from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.checkpoint.settings import Settings
from shard_tools.graphs.embed_head import HeadSpec
from shard_tools.graphs.spec import GraphSpec
from shard_tools.packing.calibration_text import CalibrationText
from shard_tools.packing.source import Source
from sti.report.wording import counted

PAGE = "docs/checkpoints.md"
_SHOWN = 6
_LONGEST = 60
_PAIR_TASKS = ("classification", "multi_label", "regression")
_SETFIT = ("model_head.pkl", "config_setfit.json")


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything that decided what a pack answers."""

    architecture: str
    task: str
    labels: tuple[str, ...]
    activation: str
    """Of a regression's values: ``sigmoid``, or nothing."""
    dimension: int
    """Numbers of an embedding; 0 for other tasks."""
    pairs: bool
    """Whether a text may be a pair."""
    layers: int
    slices: int
    hidden: int
    ladder: tuple[int, ...]
    head: Mapping[str, Any]
    """What the head computes, as the graphs' spec says it."""
    tokenizer: Mapping[str, Any]
    """Its settings, and the words of its vocabulary."""
    prompts: Mapping[str, str]
    default_prompt: str
    """The name of the prompt that is put before texts; empty for none."""
    told: tuple[str, ...]
    """What was taken for granted, a sentence each."""
    importance: str
    """What the gains of planes come from."""
    calibration: tuple[CalibrationText, ...]
    """The texts that were used, and beside the user's the built-in ones; none if none were."""
    settings: Settings
    unread: tuple[str, ...]
    """Tensors of the checkpoint that the pack has nothing of."""
    estimated_bytes: int
    """Of the pack."""
    warnings: tuple[str, ...]

    def members(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        return found | {"calibration": [item.members() for item in self.calibration]}

    def lines(self) -> Iterator[str]:
        """For people: a line for each thing that there is something to say of."""
        yield (
            f"architecture  {self.architecture}, {counted(self.layers, 'layer')} of "
            f"{counted(self.slices, 'slice')}, width {self.hidden}, "
            f"{', '.join(map(str, self.ladder))} bits"
        )
        yield f"task          {self.task}{self._answer()}{self._labels()}"
        yield f"head          {_words(self.head)}"
        yield f"tokenizer     {_words(self.tokenizer)}"
        if self.prompts:
            default = self.default_prompt or "none"
            yield f"prompts       {_some(sorted(self.prompts))}; by default {default}"
        yield f"importance    {self.importance}"
        for number, item in enumerate(self.calibration):
            yield f"              {'compare ' if number else ''}{item.words()}"
        if self.unread:
            yield f"left out      {_some(_grouped(self.unread))}"
        for sentence in self.told:
            yield f"note          {sentence}"
        yield (
            f"settings      {len(self.settings.applied)} applied, {len(self.settings.harmless)} "
            f"without effect, {len(self.settings.unknown)} unknown"
        )

    def _answer(self) -> str:
        """What is answered, besides labels."""
        size = f", {counted(self.dimension, 'number')}" * bool(self.dimension)
        pairs = "" if self.pairs else ", single texts only"
        return size + f", {self.activation}" * bool(self.activation) + pairs

    def _labels(self) -> str:
        return f", {counted(len(self.labels), 'label')}: {_some(self.labels)}" * bool(self.labels)


def summarize(
    checkpoint: Checkpoint,
    source: Source,
    graphs: GraphSpec,
    *,
    importance: str,
    calibration: tuple[CalibrationText, ...],
    estimated_bytes: int,
) -> Summary:
    """Sum up what a checkpoint became; its tensors have all been read."""
    model = source.model
    notices = (item.notice() for item in calibration[:1])
    return Summary(
        architecture=model.architecture,
        task=model.task,
        labels=model.labels,
        activation=model.activation,
        dimension=model.dimension,
        pairs=model.pairs and model.task != "tagging",
        layers=model.layers,
        slices=model.slices,
        hidden=model.hidden,
        ladder=source.ladder,
        head=_head(graphs.head),
        tokenizer={"words": source.vocabulary.count(b"\n") + 1, **source.tokenizer.to_json()},
        prompts=source.prompts.texts,
        default_prompt=source.prompts.default,
        told=model.told,
        importance=importance,
        calibration=calibration,
        settings=source.settings,
        unread=tuple(sorted(checkpoint.unread())),
        estimated_bytes=estimated_bytes,
        warnings=(
            *_unknown(source.settings),
            *_left_out(checkpoint),
            *_types(checkpoint, model),
            *filter(None, notices),
        ),
    )


def _head(spec: HeadSpec) -> dict[str, Any]:
    """What the head computes; without what it has none of."""
    found = asdict(spec)
    if "pooler" not in spec.poolings:
        del found["activation"]
    if spec.kind == "tokens":
        del found["poolings"]
    return found


def _unknown(settings: Settings) -> Iterator[str]:
    for name in settings.unknown:
        yield (
            f"{name} is unknown and was ignored; if it changes what the model answers, the pack is "
            f"wrong ({PAGE} lists what is known)"
        )


def _left_out(checkpoint: Checkpoint) -> Iterator[str]:
    """What lies beside a checkpoint and changes its answers, but is never opened."""
    there = [name for name in _SETFIT if (checkpoint.directory / name).exists()]
    if there:
        yield (
            f"{checkpoint.directory / there[0]}: the classifier that SetFit put on the embeddings "
            "is left out: a pickle runs code, so it is never opened; the pack gives embeddings"
        )


def _types(checkpoint: Checkpoint, model: Model) -> Iterator[str]:
    """Where the reference leaves out types, pairs get other answers; single texts do not."""
    settings = checkpoint.json("tokenizer_config.json")
    names = settings.get("model_input_names") if isinstance(settings, Mapping) else None
    if names and "token_type_ids" not in names and model.typed_pairs and model.task in _PAIR_TASKS:
        yield (
            "tokenizer_config.json: model_input_names leaves out token_type_ids, so transformers "
            "does not tell the texts of a pair apart; the pack does"
        )


def _words(values: Mapping[str, Any]) -> str:
    """Values in words: flags that are set by name, others as name and value."""
    parts = []
    for name, value in values.items():
        plain = name.replace("_", " ")
        if value is True:
            parts.append(plain)
        elif isinstance(value, str | int | float) and value is not False:
            parts.append(f"{plain} {value}")
        elif isinstance(value, list | tuple) and value:
            parts.append(f"{plain} {_some(list(map(_item, value)))}")
    return ", ".join(parts)


def _item(value: object) -> str:
    """One of a list: of a value with members, those that say something, and flags by name."""
    if not isinstance(value, Mapping):
        return str(value)
    said = (
        name if member is True else str(member)
        for name, member in value.items()
        if member not in (False, "", "none")
    )
    return " ".join(said)


def _some(names: Collection[str]) -> str:
    """The first few of a list."""
    shown = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names]
    more = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _grouped(names: Collection[str]) -> list[str]:
    """Tensors by the modules that they are of, in whichever layer."""
    starred = (
        ".".join("*" if part.isdigit() else part for part in name.split(".")) for name in names
    )
    modules = Counter(name.rpartition(".")[0] or name for name in starred)
    return [f"{module} ({counted(count, 'tensor')})" for module, count in modules.items()]
