"""Rewrites trained PyTorch models into smaller graphs for inference that compute the same function."""
