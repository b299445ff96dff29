"""Recordings in, one file a speaker out."""
