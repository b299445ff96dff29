"""`sepml serve`: a page to try a model."""
