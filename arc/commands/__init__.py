"""The commands of `python arc.py`, a module for each kind.

They are imported at every start, so each imports what it needs inside of its functions: `token list` shall not wait
for the query engine.
"""
