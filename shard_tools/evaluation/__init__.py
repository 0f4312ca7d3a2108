"""``sti-shard evaluate``: plans beside baselines under the same limits."""
