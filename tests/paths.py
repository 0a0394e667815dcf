"""Where the repository lies, and the data and golden vectors that are kept beside it."""

import pathlib

REPOSITORY = pathlib.Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"
