"""The metadata database: everything that is not a metric."""
