"""Connectors for vLLM."""
