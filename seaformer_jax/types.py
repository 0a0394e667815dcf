"""Type names for the two kinds of dictionaries of arrays that most modules exchange.

They describe the contents in signatures; both are plain `dict[str, Any]` and are not checked at run time.
"""

from typing import Any

# A nested dictionary whose leaves are arrays, such as parameters, or one value per array, such as its name.
Tree = dict[str, Any]
# Field name -> array whose first axis is the batch. The `constants` of a task may be nested dictionaries.
Batch = dict[str, Any]
