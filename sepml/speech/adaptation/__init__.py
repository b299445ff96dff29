"""Adaptation of trained separators to recordings without references."""
