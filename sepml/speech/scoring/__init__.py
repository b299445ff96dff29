"""Metrics of separated signals, and the evaluation of models on manifests."""
