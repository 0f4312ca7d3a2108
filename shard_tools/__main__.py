"""``python -m shard_tools``: the same as the ``sti-shard`` command."""

from shard_tools.cli.start import sti_shard

if __name__ == "__main__":
    sti_shard()
