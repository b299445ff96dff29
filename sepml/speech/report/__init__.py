"""`sepml report`: one HTML page about scores and training."""
