"""Reads and writes JSON files in the project's format: indented, with a line break at the end.

Lists are read as tuples, because the values go into frozen dataclasses and into configs, whose defaults are tuples.
This module imports only the standard library, so that bundles can be read on a device.
"""

import json
import os
import pathlib
from typing import Any


def write(path: pathlib.Path, content: dict[str, Any] | list[Any]) -> None:
    """Writes `content` to the file `path`, which keeps its old content if the process is killed meanwhile."""
    text = json.dumps(content, indent=2) + "\n"
    if "://" in os.fspath(path):  # A bucket shows a file once it is complete, and cannot rename it.
        path.write_text(text)
        return
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def read(path: pathlib.Path) -> Any:
    """Returns the content of the file `path`, with tuples in place of lists.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file does not contain JSON.
    """
    return _tuples(json.loads(path.read_text()))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
