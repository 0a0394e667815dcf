"""Reads and writes files of weights, and loads models from them."""
