"""Class names: which validation data is accepted, and the errors for other data."""

import pytest

from seaformer_jax.data import class_names
from seaformer_jax.errors import UserError


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (("cat", "dog"), ["cat", "dog"]),  # Names from config.json are a list.
        (("cat", "dog"), ["class 0", "class 1"]),  # Placeholders, for weights without names.
    ],
)
def test_same_classes_and_nameless_weights(found, expected):
    class_names.check_same(found, expected, "the weights")


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        (
            ("cat", "dog"),
            ("cat", "eel"),
            "^class 1 is 'dog' in the validation data, but 'eel' in the weights; ",
        ),
        (
            ("cat", "dog"),
            ("dog", "cat"),
            "^class 0 is 'cat' in the validation data, but 'dog' in the weights; ",
        ),
        (
            ("cat", "dog"),
            ("cat", "dog", "eel"),
            r"^the validation data has 2 classes \('cat' to 'dog'\), but the weights 3 classes \('cat' to 'eel'\)",
        ),
        (("cat", "dog"), ["class 0"], "has 2 classes"),
        (("class 0", "class 1"), ("cat", "dog"), "^class 0 is 'class 0'"),
    ],
)
def test_other_classes(found, expected, message):
    with pytest.raises(UserError, match=message):
        class_names.check_same(found, expected, "the weights")
