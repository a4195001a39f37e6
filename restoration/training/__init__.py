"""One run: step, loop, checkpoints, log and record."""
