"""Exports to and runs in each supported runtime: one module per runtime."""
