"""The version of sepml."""

__version__ = "0.1.0"
