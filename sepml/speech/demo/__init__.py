"""`sepml serve`: a web page to separate recordings."""
