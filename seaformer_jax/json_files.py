"""JSON files as the project writes them: indented, with a line break at the end; lists are read as tuples.

Tuples, because the values end in frozen dataclasses and in configs, whose defaults are tuples. Needs the standard
library alone, so that bundles can be read on a device.
"""

import json
import pathlib
from typing import Any


def write(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes `content` to the file `path`."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def read(path: pathlib.Path) -> Any:
    """Returns the content of the file `path`, with tuples in place of lists.

    Raises:
        OSError: the file cannot be read.
        ValueError: it does not hold JSON.
    """
    return _tuples(json.loads(path.read_text()))


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
