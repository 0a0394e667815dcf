"""SeaFormer and SeaFormer++ in JAX/Flax: `create_model` and `list_models`; the rest is in the rooms below."""

import importlib

__all__ = ["create_model", "list_models"]


def __getattr__(name: str):
    # Lazy, so that data workers and other users of a single room do not pay for importing JAX and Flax.
    if name in __all__:
        return getattr(importlib.import_module("seaformer_jax.models.registry"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
