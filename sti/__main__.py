"""``python -m sti``: the same as the ``sti`` command."""

from sti.cli.start import sti

if __name__ == "__main__":
    sti()
