"""The training engine: experiments, the loop, checkpoints, history, devices; it knows no task."""
