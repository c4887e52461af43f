"""Connectors for LMCache."""
