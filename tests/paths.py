"""Paths of the repository and of the shared folder beside it, which holds data and golden vectors."""

import pathlib

REPOSITORY = pathlib.Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"
