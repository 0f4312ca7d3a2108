"""Where ``sti-shard`` starts; see ``sti.cli.start``."""

from sti.cli.start import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def sti_shard() -> "NoReturn":
    """The ``sti-shard`` command."""
    start("sti-shard", _command)


def _command() -> "NoReturn":
    from shard_tools.cli.main import command

    command()
