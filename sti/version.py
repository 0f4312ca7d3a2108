"""The versions of this project, where no module has to import the face for them."""

__version__ = "0.1.0"
JSON_VERSION = 2
"""Of every JSON document that the command lines print; it grows when a member changes meaning."""
