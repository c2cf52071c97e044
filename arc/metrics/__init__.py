"""Metrics: decode, write-ahead log, buffer, lake, query, upkeep."""
