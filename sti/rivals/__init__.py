"""Other ways to answer with the same model, measured beside ours: one process each, in turns."""
