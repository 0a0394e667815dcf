"""Versions of installed packages, for the files that say how a result was made."""

import importlib.metadata


def installed(package: str) -> str | None:
    """Returns the version of `package`, named as pip names it; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
