"""Where source utterances come from."""
