"""The job document: what a client submits, read from JSON or YAML and checked.

body -> parsing.parse -> yamltext or json -> models (names and types) -> rules -> JobDocument
"""
