"""Class names: placeholders for weights without names, and the check that two data sets have the same classes."""

from collections.abc import Sequence

from seaformer_jax.errors import UserError


def numbered(count: int) -> list[str]:
    """Returns names for weights that have none: "class 0", "class 1", ..."""
    return [f"class {index}" for index in range(count)]


def check_same(found: Sequence[str], expected: Sequence[str], owner: str) -> None:
    """Checks that the validation data has the expected classes.

    If the expected names are those of `numbered`, only the number of classes is compared.

    Args:
        found: Class names of the validation data, in order.
        expected: Class names of the model that is validated, in order.
        owner: Where the expected names come from, for the error message: "the training data" or "the weights".

    Raises:
        UserError: The classes differ, or their order does: label k would have two meanings.
    """
    found, expected = list(found), list(expected)
    if found == expected or expected == numbered(len(found)):
        return
    if len(found) != len(expected):
        difference = f"the validation data has {_summary(found)}, but {owner} {_summary(expected)}"
    else:
        index = next(i for i, pair in enumerate(zip(found, expected, strict=True)) if len(set(pair)) == 2)
        difference = (
            f"class {index} is {found[index]!r} in the validation data, but {expected[index]!r} in {owner}"
        )
    raise UserError(f"{difference}; correct config.data: both need the same classes in the same order")


def _summary(names: list[str]) -> str:
    return f"{len(names)} classes ({names[0]!r} to {names[-1]!r})"
