"""Versions of installed packages, for files that record how a result was made."""

import importlib.metadata


def installed(package: str) -> str | None:
    """Returns the version of `package` (its name for pip), or None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
