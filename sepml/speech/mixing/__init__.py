"""Making mixtures from mix lists and utterances, and their verification."""
