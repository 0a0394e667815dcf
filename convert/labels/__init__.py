"""Turns low-resolution logits into class maps, in C or in NumPy."""
