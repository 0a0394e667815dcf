"""Augmentation of a whole batch inside the training step; the one folder of `data` that imports JAX.

All functions are pure JAX, take the global batch and make their draws from the key alone, so that the result does
not depend on how the batch is sharded. The order of the official recipe is `mix`, `normalize`, `random_erasing`.
"""
