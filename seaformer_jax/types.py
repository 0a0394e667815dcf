"""Names for the two kinds of nested dictionaries that most modules pass around."""

from typing import Any

Tree = dict[str, Any]  # Nested; its leaves are arrays, or one value for each array.
Batch = dict[str, Any]  # Field -> array whose first axis is the batch; `constants` of a task may be nested.
