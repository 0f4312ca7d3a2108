"""``sti-shard rank``: what every shard is worth, and what metric any plan will have."""
