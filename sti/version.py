"""The version of this project, where no module has to import the face for it."""

__version__ = "0.1.0"
