"""Connectors for SGLang."""
