"""The commands: their options, and the calls that they make."""
