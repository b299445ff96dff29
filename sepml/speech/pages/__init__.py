"""Pages to look at and listen to: reports, and one to try a model."""
