"""Converts weights between JAX and PyTorch, and exports models to runtimes on phones and computers."""
