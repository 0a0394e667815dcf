"""Evaluates the program in a Core ML file in PyTorch, operator by operator.

The file's own bytes are read: operators and weights are those that Core ML will load. Operators compute in the type
that the program gives them, so that half precision rounds after each of them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convert.runtimes.mil_operators import OPERATORS, Values
from seaformer_jax.errors import UserError

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Function, Operation
    from torch import Tensor


def read(package: Path, weights: Path) -> "Function":
    """Returns the only function of a package; `weights` is the folder of its weights.

    Raises:
        UserError: The program has an operator that this module does not know, so that it cannot be checked.
    """
    from coremltools.converters.mil.frontend.milproto import load
    from coremltools.models import utils

    spec = utils.load_spec(str(package))
    function = load.load(spec, spec.specificationVersion, str(weights)).functions["main"]
    unknown = {operation.op_type for operation in function.operations} - {"const", *OPERATORS}
    if unknown:
        raise UserError(
            f"the Core ML program has the operators {', '.join(sorted(unknown))}, which cannot be evaluated here, so "
            "that the file cannot be checked; choose another format"
        )
    return function


def evaluate(function: "Function", inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the outputs of `function` by name; `inputs` has its inputs by name."""
    import torch

    values = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        for operation in function.operations:
            if operation.op_type == "const":
                continue
            results = OPERATORS[operation.op_type](_inputs(operation, values))
            results = results if len(operation.outputs) > 1 else [results]
            values |= {output.name: each for output, each in zip(operation.outputs, results, strict=True)}
    return {output.name: values[output.name].numpy() for output in function.outputs}


def _inputs(operation: "Operation", values: "Mapping[str, Tensor]") -> Values:
    """Returns an operator's inputs: constants of several values as tensors, unless they describe axes."""

    def value(variable: Any) -> Any:
        import torch

        if isinstance(variable, list | tuple):
            return [value(each) for each in variable]
        if variable is None or variable.val is None:
            return variable and values[variable.name]
        if isinstance(variable.val, str):
            return variable.val
        array = np.asarray(variable.val)
        return torch.from_numpy(array) if array.dtype.kind == "f" and array.ndim else array.tolist()

    return {name: value(variable) for name, variable in operation.inputs.items()}
