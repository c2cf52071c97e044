"""Backups: a copy of everything the server keeps, taken while it works, and the way back.

service.py makes, lists and removes them for the API, archive.py knows what one looks like and carries it as a tar
stream, which is how it leaves the server, gets onto another disk and comes back.
"""
