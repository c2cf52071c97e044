"""Queries: guard, engine, answers."""
