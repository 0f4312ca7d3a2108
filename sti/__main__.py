"""``python -m sti``: the same as the ``sti`` command."""

from sti.cli.main import command

if __name__ == "__main__":
    command()
