"""The offline tool: checkpoints in, packs out (``sti-shard``). The run time never imports it."""
