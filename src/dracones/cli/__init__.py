"""Command line: thin verbs over the public API. Importing this loads neither torch nor any room."""

from dracones.cli.main import main

__all__ = ["main"]
