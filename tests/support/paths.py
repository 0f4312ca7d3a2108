"""Where the repository's own files lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "models"
GOLDEN = ROOT / "tests" / "golden"
MINILM = MODELS / "all-MiniLM-L6-v2.sti.safetensors"
INTENTS = MODELS / "clinc150-intents.sti.safetensors"
