"""One file per step, in the order of the numbers."""
