"""SeaFormer and SeaFormer++ in JAX and Flax.

`create_model` builds a model; `list_models` and `list_weights` give the names that it takes.
"""

import importlib

__version__ = "0.2.0"

__all__ = ["create_model", "list_models", "list_weights"]

_MODULES = {"create_model": "registry", "list_models": "registry", "list_weights": "pretrained"}


def __getattr__(name: str):
    # Lazy, so that data workers and other users of a single module do not wait for JAX and Flax to be imported.
    if name in _MODULES:
        return getattr(importlib.import_module(f"seaformer_jax.models.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
