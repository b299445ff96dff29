"""What a folder of scores holds: summaries, tables, comparisons."""
