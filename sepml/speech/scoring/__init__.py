"""What estimates are worth."""
