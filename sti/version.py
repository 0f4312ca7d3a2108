"""Version numbers, in a module of their own so that nothing needs to import ``sti`` for them."""

__version__ = "0.1.0"
JSON_VERSION = 2
"""Of every JSON document that the command lines print; it grows when a member changes meaning."""
