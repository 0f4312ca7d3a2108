"""``python -m shard_tools``: the same as the ``sti-shard`` command."""

import sys

from shard_tools.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
