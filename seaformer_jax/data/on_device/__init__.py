"""Augmentation of a whole batch inside the training step; the only package of `data` that imports JAX.

All functions are pure JAX and take the global batch. They draw from the key alone, so the result does not depend on
how the batch is sharded. The official recipe applies `mix`, `normalize` and `random_erasing`, in this order.
"""
