"""STI: elastic pipelining for transformers on small machines.

    import sti

    with sti.Engine.open("model.sti.safetensors", latency="200ms", preload="4MB") as engine:
        vectors = engine.embed(["a sentence", "another one"])

``Engine`` streams a pack's weights from storage, decodes and computes them in a pipeline, and
plans how much of the model to use so that the answer is there in time.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from sti.errors import (
    BackendError,
    CheckpointError,
    ClosedError,
    ConfigError,
    InfeasibleError,
    InputError,
    PackCorruptError,
    PackError,
    PackFormatError,
    PlanError,
    ProfileError,
    RunError,
    StiError,
    StiWarning,
    StorageError,
)
from sti.version import __version__

if TYPE_CHECKING:
    from sti.device.profile import DeviceProfile
    from sti.engine.answers import Label, TextSpan
    from sti.engine.engine import Engine
    from sti.engine.results import Result, Timing
    from sti.planning.plan import Plan

__all__ = [
    "BackendError",
    "CheckpointError",
    "ClosedError",
    "ConfigError",
    "DeviceProfile",
    "Engine",
    "InfeasibleError",
    "InputError",
    "Label",
    "PackCorruptError",
    "PackError",
    "PackFormatError",
    "Plan",
    "PlanError",
    "ProfileError",
    "Result",
    "RunError",
    "StiError",
    "StiWarning",
    "StorageError",
    "TextSpan",
    "Timing",
    "__version__",
]

# Must stand before onnxruntime is imported: 1.31 otherwise opens a database and starts a thread for
# its telemetry. Who wants that sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Engine": "sti.engine.engine",
    "Plan": "sti.planning.plan",
    "DeviceProfile": "sti.device.profile",
    "Label": "sti.engine.results",
    "Result": "sti.engine.results",
    "TextSpan": "sti.engine.results",
    "Timing": "sti.engine.results",
}


def __getattr__(name: str) -> object:
    """Import the engine when it is first asked for: who only plans or packs needs no ORT."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
