"""Storage: write-ahead log, buffer, schemas, lake."""
