"""Arc: the control room of a small fleet, in one process."""

__version__ = "1.0.0"
