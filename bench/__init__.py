"""Benchmarks of a running server; never timed tests. `python -m bench.ingest`, `python -m bench.query`."""
