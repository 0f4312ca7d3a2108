"""The names of all targets: whoever asks for them needs none of the readers."""

NAMES = (
    *("header", "manifest", "residents", "staircases", "graph", "model", "tokenizer", "config"),
    *("units", "json", "answers", "plan", "trace", "device", "cache", "history", "checkpoint"),
    *("tensors", "journal", "state", "rows", "envelope", "frames", "key"),
)
