"""``python -m sti``: the same as the ``sti`` command."""

import sys

from sti.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
