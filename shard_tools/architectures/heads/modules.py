"""sentence-transformers' chain of modules: what follows the encoder of a sentence embedding.

In: ``modules.json`` and the configurations it points to, or a lone pooling configuration, as all
releases write them. Out: ``Modules``. What is not supported, or switched on and unknown, is refused
by name. Knows nothing of tensors, but which file has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from shard_tools.checkpoint.reader import Checkpoint
from shard_tools.graphs.embed_head import HeadActivation, HeadStep, Pooling, StepKind
from sti.errors import CheckpointError
from sti.graphs.interfaces import MOST_STEPS
from sti.json_fields import JsonFields
from sti.pack.manifest_bounds import MOST_HIDDEN

_FLAGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Of earlier releases, in the order in which several are put side by side."""
_POOLINGS: Mapping[str, Pooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_ACTIVATIONS: Mapping[str, HeadActivation] = {
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.linear.Identity": "none",
}
_DEFAULT_ACTIVATION = "torch.nn.modules.activation.Tanh"
_STEPS: Mapping[str, StepKind] = {"Dense": "dense", "LayerNorm": "norm", "Normalize": "normalize"}
_WITHOUT_EFFECT = "Dropout"
_PACKAGE = "sentence_transformers."
_ANSWER = "sentence_embedding"
_SUPPORTED = f"Transformer, Pooling, and then any of {', '.join((*_STEPS, _WITHOUT_EFFECT))}"


@dataclass(frozen=True, slots=True)
class ModuleStep:
    """What a module behind the pooling does, and where its tensors are."""

    step: HeadStep
    inputs: int
    """Numbers that it takes."""
    source: Checkpoint | None
    """Has its tensors; None for a step without any."""
    biased: bool
    """Whether a dense layer has a bias."""


@dataclass(frozen=True, slots=True)
class Modules:
    """What follows the encoder."""

    poolings: tuple[Pooling, ...]
    steps: tuple[ModuleStep, ...] = ()


def read_modules(checkpoint: Checkpoint, *, hidden: int) -> Modules | None:
    """The modules by ``modules.json``, or by a lone pooling configuration; None without either.

    Args:
        checkpoint: the checkpoint.
        hidden: numbers of a token's hidden state.

    Raises:
        CheckpointError: a module is not supported, or malformed; names it.
    """
    listed = checkpoint.json("modules.json")
    where = str(checkpoint.directory / "modules.json")
    if listed is None:
        poolings = _poolings(checkpoint, "1_Pooling", hidden)
        return None if poolings is None else Modules(poolings)
    fields = JsonFields({"modules": listed}, where=where, error=CheckpointError)
    found = [_listed(number, item) for number, item in enumerate(fields.objects("modules"))]
    kinds = [kind for kind, _ in found]
    unknown = [kind for kind in kinds[2:] if kind not in (*_STEPS, _WITHOUT_EFFECT)]
    if kinds[:2] != ["Transformer", "Pooling"] or unknown:
        raise CheckpointError(
            f"{where}: modules {', '.join(kinds):.200} are not supported; supported: {_SUPPORTED}"
        )
    if found[0][1] not in ("", "."):
        raise CheckpointError(
            f"{where}: the Transformer module is in {found[0][1]!r:.80}; put that directory's "
            "files beside the module files"
        )
    for kind, folder in found[1:]:
        path = PurePosixPath(folder)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise CheckpointError(
                f"{where}: the {kind} module must be in a folder inside the checkpoint, found "
                f"{folder!r:.80}"
            )
    folder = found[1][1]
    poolings = _poolings(checkpoint, folder, hidden)
    if poolings is None:
        raise CheckpointError(f"{checkpoint.directory / folder / 'config.json'} is missing")
    steps: list[ModuleStep] = []
    size = hidden * len(poolings)
    for kind, folder in found[2:]:
        if kind != _WITHOUT_EFFECT:
            steps.append(_step(checkpoint, folder, _STEPS[kind], size))
            size = steps[-1].step.size
    if len(steps) > MOST_STEPS:
        raise CheckpointError(f"{where}: {len(steps)} modules behind Pooling; {MOST_STEPS} may be")
    return Modules(poolings, tuple(steps))


def _listed(number: int, item: JsonFields) -> tuple[str, str]:
    """Kind and folder of the module at this place of the list, which is the order they are in."""
    if item.has("idx") and item.integer("idx") != number:
        raise item.fail("idx", f"{number}, its place in the list")
    return _kind(item), item.text("path")


def _kind(item: JsonFields) -> str:
    """What a module is, by the name of its class: in full where it is of another package."""
    name = item.text("type")
    return name.rsplit(".", 1)[-1] if name.startswith(_PACKAGE) else name


def _poolings(checkpoint: Checkpoint, folder: str, hidden: int) -> tuple[Pooling, ...] | None:
    """The ways of pooling in a Pooling module's configuration; None where there is none."""
    fields = _config(checkpoint, folder)
    if fields is None:
        return None
    for key in ("embedding_dimension", "word_embedding_dimension"):
        if fields.has(key) and fields.integer(key) != hidden:
            raise fields.fail(key, f"{hidden}, the model's hidden_size")
    if fields.has("include_prompt") and not fields.flag("include_prompt"):
        raise CheckpointError(
            f"{fields.where}: include_prompt false is not supported: prompts are always pooled; "
            "supported: true"
        )
    modes = _modes(fields)
    for mode in modes:
        if mode not in _POOLINGS:
            raise CheckpointError(
                f"{fields.where}: pooling {mode!r:.60} is not supported; supported: some of "
                f"{', '.join(_POOLINGS)}"
            )
    if len(modes) > len(_POOLINGS):
        raise CheckpointError(f"{fields.where}: pools in {len(modes)} ways; at most one of each")
    return tuple(_POOLINGS[mode] for mode in modes)


def _modes(fields: JsonFields) -> tuple[str, ...]:
    """The names of the ways of pooling; of no way, mean."""
    if fields.has("pooling_mode"):
        stated = fields.raw("pooling_mode")
        modes = (stated,) if isinstance(stated, str) else fields.texts("pooling_mode")
        if not modes:
            raise fields.fail("pooling_mode", "the name of a way of pooling, or several")
        return modes
    flags = {key: fields.flag(key) for key in fields.keys() if key.startswith("pooling_mode_")}
    unknown = [key for key, flag in flags.items() if flag and key not in _FLAGS]
    known = [mode for key, mode in _FLAGS.items() if flags.get(key)]
    return (*known, *unknown) or ("mean",)


def _step(checkpoint: Checkpoint, folder: str, kind: StepKind, size: int) -> ModuleStep:
    """A module behind the pooling, which gets ``size`` numbers."""
    directory, fields = checkpoint.directory / folder, _config(checkpoint, folder)
    if fields is None:
        if kind == "normalize":  # which earlier releases write no configuration of
            return ModuleStep(HeadStep(kind, size), size, None, False)
        raise CheckpointError(f"{directory / 'config.json'} is missing")
    for key in ("module_input_name", "module_output_name"):
        if fields.has(key) and fields.text(key) != _ANSWER:
            raise fields.fail(key, repr(_ANSWER))
    if kind == "norm":
        fields.integer("dimension", least=size, most=size)
    if kind != "dense":
        source = None if kind == "normalize" else checkpoint.module(folder)
        return ModuleStep(HeadStep(kind, size), size, source, False)
    fields.integer("in_features", least=size, most=size)
    if fields.has("use_residual") and fields.flag("use_residual"):
        raise CheckpointError(f"{fields.where}: use_residual true is not supported")
    named = fields.raw("activation_function")
    named = _DEFAULT_ACTIVATION if named is None else named
    if not isinstance(named, str) or named not in _ACTIVATIONS:
        raise CheckpointError(
            f"{fields.where}: activation_function {named!r:.80} is not supported; supported: "
            f"{', '.join(_ACTIVATIONS)}"
        )
    outputs = fields.integer("out_features", least=1, most=MOST_HIDDEN)
    biased = fields.flag("bias") if fields.has("bias") else True
    step = HeadStep("dense", outputs, _ACTIVATIONS[named])
    return ModuleStep(step, size, checkpoint.module(folder), biased)


def _config(checkpoint: Checkpoint, folder: str) -> JsonFields | None:
    config = checkpoint.json(f"{folder}/config.json")
    if config is None:
        return None
    where = str(checkpoint.directory / folder / "config.json")
    return JsonFields(config, where=where, error=CheckpointError)
