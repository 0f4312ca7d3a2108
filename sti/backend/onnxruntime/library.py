"""ONNX Runtime, imported where this process has room for it.

In: nothing. Out: the module, as ``ort``; or, where a limit on memory, open files or threads keeps
it from being imported, an error that names the limit (``sti.device.process_limits``).
"""

from __future__ import annotations

import sys

from sti.device.at_exit import OPEN
from sti.device.process_limits import ONNX_RUNTIME, check_room, limit_error

try:
    if "onnxruntime" not in sys.modules:
        check_room(ONNX_RUNTIME)
    with OPEN.loading():
        import onnxruntime as ort
except (ImportError, MemoryError, OSError, RuntimeError) as error:
    limit = limit_error(error)
    if limit is None:
        raise
    raise limit from error

__all__ = ["ort"]
