"""Separators: built, read from anywhere, described, exported."""
