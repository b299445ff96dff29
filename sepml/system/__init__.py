"""What the operating system gives: files, archives, processes, locks, progress, and the readers of plain formats."""
