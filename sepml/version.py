"""The version of sepml."""

__version__ = "0.2.0"
