"""Finds and replaces modules of a PyTorch model by their type."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import nn

Part = TypeVar("Part", bound=nn.Module)


def parts(model: nn.Module, kind: type[Part]) -> Iterator[Part]:
    """Returns an iterator over the modules of type `kind`."""
    return (module for module in model.modules() if isinstance(module, kind))


def replace(model: nn.Module, kind: type[Part], build: Callable[[Part], nn.Module]) -> None:
    """Replaces every module of type `kind` by `build(module)`, in place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, build(child))
