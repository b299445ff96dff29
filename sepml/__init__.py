"""Single-channel speech separation by selective mutual learning."""

__version__ = "0.1.0"
