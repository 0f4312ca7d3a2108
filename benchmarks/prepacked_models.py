"""Makes the int8 models that ONNX Runtime alone is fastest with, whole and a model a layer.

    python -m benchmarks.prepacked_models CHECKPOINT OUT

CHECKPOINT is as for `ort_models`. The graph has ONNX Runtime's fused operators (attention as one,
residual and norm as one, bias and GELU as one), is quantized by quantize_dynamic with a scale for
every column, and is saved as ONNX Runtime optimized it, with its weights as its products want them
(`session.save_external_prepacked_constant_initializers`) in a file beside it. Opened from its path,
that file is mapped: nothing is optimized, packed or copied anew. OUT receives

    whole.onnx                       ids, mask and types to embedding
    embed.onnx                       ids and types to the first hidden state
    layer_00.onnx, layer_01.onnx ..  hidden state and mask to the next hidden state
    head.onnx                        hidden state and mask to embedding

Such files belong to one kind of processor and one version of ONNX Runtime; `directory` names a
place after both. Each weight is in them twice, as it was and packed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.ort_models import Export
from benchmarks.systems.prepacked import EMBED, HEAD, WHOLE, layer_file, weights_file
from shard_tools.checkpoint.reader import Checkpoint
from sti.device.identity import instruction_set

_CONTRIB = "com.microsoft"
_HIDDEN, _IDS, _MASK, _TYPES = "hidden", "input_ids", "attention_mask", "token_type_ids"
_ENTRIES = {
    "session.save_external_prepacked_constant_initializers": "1",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}
_NAME_ENTRY = "session.optimized_model_external_initializers_file_name"


def directory(parent: Path) -> Path:
    """The place below ``parent`` for models of this processor and this ONNX Runtime."""
    return parent / f"prepacked-{instruction_set()}-{ort.__version__}"


def files_of(layers: int) -> tuple[str, ...]:
    """The names of all models of a checkpoint of so many layers."""
    return (WHOLE, EMBED, *map(layer_file, range(layers)), HEAD)


def make_prepacked(checkpoint: Path, out: Path) -> tuple[str, ...]:
    """Write all models; what is there already stays.

    Returns:
        The names of the models.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ValueError: it has another activation than GELU.
    """
    out.mkdir(parents=True, exist_ok=True)
    with Checkpoint(checkpoint) as opened:
        names = files_of(int(opened.config["num_hidden_layers"]))
        parts: dict[str, Callable[[FusedExport], onnx.ModelProto]] = {
            WHOLE: FusedExport.model,
            EMBED: FusedExport.embed_part,
            HEAD: FusedExport.head_part,
        }
        for number, name in enumerate(names[2:-1]):
            parts[name] = lambda export, number=number: export.layer_part(number)
        for name in names:
            if not (out / name).exists():
                _save_prepacked(parts[name](FusedExport(opened)), out / name)
    return names


class FusedExport(Export):
    """Builds graphs of ONNX Runtime's fused operators, whole or in parts."""

    def model(self) -> onnx.ModelProto:
        """The whole model."""
        made = super().model()
        made.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
        return made

    def embed_part(self) -> onnx.ModelProto:
        """Ids and types to the hidden state before the first layer."""
        self._identity(self.embeddings())
        return self._part([_ids(_IDS), _ids(_TYPES)], self._hidden("out"))

    def layer_part(self, number: int) -> onnx.ModelProto:
        """Hidden state and mask to the hidden state after layer ``number``."""
        self._identity(self.layer(f"encoder.layer.{number}.", _HIDDEN, self.mask()))
        return self._part([self._hidden(_HIDDEN), _ids(_MASK)], self._hidden("out"))

    def head_part(self) -> onnx.ModelProto:
        """Hidden state and mask to the embedding."""
        self.pool(_HIDDEN)
        out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", self.hidden])
        return self._part([self._hidden(_HIDDEN), _ids(_MASK)], out)

    def mask(self) -> str:
        """As the fused attention wants it: ``[batch, tokens]``, 1 for a token, 0 for padding."""
        return self.op("Cast", _MASK, to=TensorProto.INT32)

    def layer(self, base: str, h: str, mask: str) -> str:
        """Attention and FFN, each with its residual and norm behind it."""
        mixed = self.contrib(
            "Attention", h, *self._joined(f"{base}attention.self."), mask, num_heads=self.heads
        )
        h = self._connected(mixed, h, f"{base}attention.output.")
        inner = self._product(f"{base}intermediate.dense", h)
        inner = self.contrib("BiasGelu", inner, self.weight(f"{base}intermediate.dense.bias"))
        return self._connected(inner, h, f"{base}output.")

    def contrib(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append one of ONNX Runtime's own operators; returns the name of its first output."""
        return self.op(kind, *inputs, domain=_CONTRIB, **attributes)

    def _joined(self, base: str) -> tuple[str, str]:
        """Weights and biases of query, key and value side by side."""
        modules = [self.prefix + base + name for name in ("query", "key", "value")]

        def tensor(name: str) -> Any:
            return self.checkpoint.tensor(name, self.checkpoint.shape(name))

        weights = np.concatenate([tensor(f"{module}.weight").T for module in modules], axis=1)
        biases = np.concatenate([tensor(f"{module}.bias") for module in modules])
        return self.constant(f"{base}weight", weights), self.constant(f"{base}bias", biases)

    def _product(self, module: str, x: str) -> str:
        return self.op("MatMul", x, self.weight(f"{module}.weight", transpose=True))

    def _connected(self, x: str, h: str, base: str) -> str:
        """The product of ``x``, its bias, the residual ``h`` and the norm."""
        return self.contrib(
            "SkipLayerNormalization",
            self._product(f"{base}dense", x),
            h,
            *self.norm_weights(f"{base}LayerNorm"),
            self.weight(f"{base}dense.bias"),
            epsilon=self.epsilon,
        )

    def _identity(self, h: str) -> None:
        self.op("Identity", h, output="out")

    def _hidden(self, name: str) -> onnx.ValueInfoProto:
        shape = ["batch", "tokens", self.hidden]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def _part(
        self, inputs: Sequence[onnx.ValueInfoProto], output: onnx.ValueInfoProto
    ) -> onnx.ModelProto:
        made = self.wrap(inputs, output)
        made.opset_import.append(helper.make_opsetid(_CONTRIB, 1))
        return made


def _ids(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])


def _save_prepacked(model: onnx.ModelProto, target: Path) -> None:
    """Quantize a model and write it as ONNX Runtime runs it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # quantizing advises a step of preparation that is not needed
    try:
        with TemporaryDirectory(dir=target.parent) as place:
            plain, quantized = Path(place) / "plain.onnx", Path(place) / "int8.onnx"
            onnx.save(model, str(plain))
            quantize_dynamic(
                plain,
                quantized,
                weight_type=QuantType.QInt8,
                per_channel=True,
                extra_options={"DefaultTensorType": TensorProto.FLOAT},
            )
            _optimize(quantized, Path(place) / target.name)
            # The model last: it tells that both are there.
            data = weights_file(target)
            if (Path(place) / data.name).exists():
                (Path(place) / data.name).replace(data)
            (Path(place) / target.name).replace(target)
    finally:
        logging.disable(before)


def _optimize(source: Path, target: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    options.add_session_config_entry(_NAME_ENTRY, weights_file(target).name)
    for name, value in _ENTRIES.items():
        options.add_session_config_entry(name, value)
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the models the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.prepacked_models",
        description=__doc__,
        epilog="example: python -m benchmarks.prepacked_models /tmp/bert-base /tmp/prepacked",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="directory to read")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to write")
    options = parser.parse_args(arguments)
    names = make_prepacked(options.checkpoint, options.out)
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{options.out}: {len(names)} models, {size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
