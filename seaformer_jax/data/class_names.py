"""Names of classes: those of training and validation data agree, those of bare weights are made up."""

from collections.abc import Sequence

from seaformer_jax.errors import UserError


def numbered(count: int) -> list[str]:
    """The names of weights that come without any: "class 0", "class 1", ..."""
    return [f"class {index}" for index in range(count)]


def check_same(found: Sequence[str], expected: Sequence[str], owner: str) -> None:
    """Checks the classes of the validation data; of `numbered` ones only how many there are.

    Args:
        found: the class names of the validation data, in order.
        expected: those of what it is to validate.
        owner: what that is, for the message: "the training data" or "the weights".

    Raises:
        UserError: other classes, or the same in another order: label k would mean two things.
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
