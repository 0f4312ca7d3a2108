"""``python -m shard_tools``: the same as the ``sti-shard`` command."""

from shard_tools.cli.main import command

if __name__ == "__main__":
    command()
