"""From mix lists and utterances to mixtures, and their verification."""
