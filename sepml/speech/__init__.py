"""Speech separation: data, separators, losses, separating and scoring."""
