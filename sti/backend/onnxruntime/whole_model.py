"""An ordinary whole ONNX model with constant weights, for comparison.

In: a model file, threads. Out: its first output for given inputs. Knows nothing of packs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sti.backend.onnxruntime.library import ort
from sti.errors import BackendError


class WholeModel:
    """One session over a model file, with ONNX Runtime's default optimizations. Not thread-safe.

    Args:
        path: the model; external data lies beside it.
        threads: compute threads; None: as many as ONNX Runtime takes.
        spinning: whether threads wait actively; None: ONNX Runtime's default.

    Raises:
        BackendError: ONNX Runtime refuses the model.
    """

    def __init__(self, path: str, *, threads: int | None, spinning: bool | None) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # What fails is raised; written to the terminal, names in a graph could steer it.
        options.log_severity_level = 4
        if spinning is not None:
            options.add_session_config_entry("session.intra_op.allow_spinning", f"{spinning:d}")
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(
                f"{path}: refused by onnxruntime {ort.__version__}: {error}"
            ) from error
        self.inputs = [item.name for item in self._session.get_inputs()]
        """Names of the model's inputs."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The first output; a new array.

        Raises:
            BackendError: the model cannot be run on these inputs.
        """
        try:
            return np.asarray(self._session.run(None, dict(feeds))[0])
        except Exception as error:
            raise BackendError(f"the model failed: {error}") from error
