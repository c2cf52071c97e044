"""Decoders: bodies of write requests and files into columns."""
