"""STI: elastic pipelining for transformers on small machines.

    import sti

    with sti.Engine.open("model.sti.safetensors", latency="200ms", preload="4MB") as engine:
        vectors = engine.embed(["a sentence", "another one"])

``Engine`` streams a pack's weights from storage, checks, decodes and computes them in a pipeline,
and plans how much of the model to use so that the answer is there in time.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from sti.device.profile import DeviceProfile
    from sti.engine.answers import (
        Answer,
        ClassAnswer,
        EmbeddingAnswer,
        Label,
        LabelAnswer,
        SpanAnswer,
        TextSpan,
        Value,
        ValueAnswer,
    )
    from sti.engine.device_options import DeviceOptions
    from sti.engine.engine import Engine
    from sti.engine.results import Result
    from sti.engine.targets import TargetSpec
    from sti.engine.timing import Timing
    from sti.errors import (
        BackendError,
        CheckpointError,
        ClosedError,
        ConfigError,
        DeadlineError,
        InfeasibleError,
        InputError,
        LimitError,
        PackCorruptError,
        PackError,
        PackFormatError,
        PartError,
        PeerError,
        PeerLostError,
        PlanError,
        ProfileError,
        RunError,
        StiError,
        StiWarning,
        StorageError,
    )
    from sti.pipeline.runner import Mode
    from sti.planning.plan import Plan
    from sti.planning.span import Span
    from sti.planning.stages import Stage
    from sti.planning.strategies import Strategy
    from sti.text.encoding import Encoding, Text
    from sti.version import __version__

__all__ = [
    "Answer",
    "BackendError",
    "CheckpointError",
    "ClassAnswer",
    "ClosedError",
    "ConfigError",
    "DeadlineError",
    "DeviceOptions",
    "DeviceProfile",
    "EmbeddingAnswer",
    "Encoding",
    "Engine",
    "InfeasibleError",
    "InputError",
    "Label",
    "LabelAnswer",
    "LimitError",
    "Mode",
    "PackCorruptError",
    "PackError",
    "PackFormatError",
    "PartError",
    "PeerError",
    "PeerLostError",
    "Plan",
    "PlanError",
    "ProfileError",
    "Result",
    "RunError",
    "Span",
    "SpanAnswer",
    "Stage",
    "StiError",
    "StiWarning",
    "StorageError",
    "Strategy",
    "TargetSpec",
    "Text",
    "TextSpan",
    "Timing",
    "Value",
    "ValueAnswer",
    "__version__",
]

# Must stand before onnxruntime is imported: 1.31 otherwise opens a database and starts a thread for
# its telemetry. Set the variable to 0 to have that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "ClassAnswer": "sti.engine.answers",
    "DeviceOptions": "sti.engine.device_options",
    "DeviceProfile": "sti.device.profile",
    "Answer": "sti.engine.answers",
    "EmbeddingAnswer": "sti.engine.answers",
    "Encoding": "sti.text.encoding",
    "Engine": "sti.engine.engine",
    "Label": "sti.engine.answers",
    "LabelAnswer": "sti.engine.answers",
    "Mode": "sti.pipeline.runner",
    "Plan": "sti.planning.plan",
    "Result": "sti.engine.results",
    "Span": "sti.planning.span",
    "Stage": "sti.planning.stages",
    "Strategy": "sti.planning.strategies",
    "SpanAnswer": "sti.engine.answers",
    "TargetSpec": "sti.engine.targets",
    "Text": "sti.text.encoding",
    "TextSpan": "sti.engine.answers",
    "Timing": "sti.engine.timing",
    "Value": "sti.engine.answers",
    "ValueAnswer": "sti.engine.answers",
    "__version__": "sti.version",
    "BackendError": "sti.errors",
    "CheckpointError": "sti.errors",
    "ClosedError": "sti.errors",
    "ConfigError": "sti.errors",
    "DeadlineError": "sti.errors",
    "InfeasibleError": "sti.errors",
    "InputError": "sti.errors",
    "LimitError": "sti.errors",
    "PackCorruptError": "sti.errors",
    "PackError": "sti.errors",
    "PackFormatError": "sti.errors",
    "PartError": "sti.errors",
    "PeerError": "sti.errors",
    "PeerLostError": "sti.errors",
    "PlanError": "sti.errors",
    "ProfileError": "sti.errors",
    "RunError": "sti.errors",
    "StiError": "sti.errors",
    "StiWarning": "sti.errors",
    "StorageError": "sti.errors",
}
_WITHOUT_NUMPY = ("sti.errors", "sti.version")


def __getattr__(name: str) -> object:
    """Import a name's module when it is first asked for: planning and packing need no ORT."""
    if name in _HOMES:
        import importlib

        if _HOMES[name] not in _WITHOUT_NUMPY:
            from sti.device.process_limits import check_numpy

            check_numpy()  # where it lacks memory it ends the process
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
