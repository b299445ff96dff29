"""The commands: the options of each, and what it does with them."""
