"""Audio files of every format, signals in blocks, levels."""
