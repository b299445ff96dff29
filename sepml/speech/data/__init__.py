"""From manifests, shards and utterance tables to batches."""
