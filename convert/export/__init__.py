"""Exports a trained model to a bundle and checks it against the trained model."""
