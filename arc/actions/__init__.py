"""Actions: durable operations on a node, with attributes and history. Standard library and psutil only.

ActionEngine.schedule -> ActionStore (actions.db) -> the worker thread invokes a Kind until it reports a final state
The server and the edge agent run the same engine; what it can do on a host, it is handed as callables (host.Host).
"""
