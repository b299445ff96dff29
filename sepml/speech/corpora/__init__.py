"""Preparation of corpora: source utterances, mix lists and manifests."""
