"""The content of a folder of scores: summaries, tables, comparisons."""
