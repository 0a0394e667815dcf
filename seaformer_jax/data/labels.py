"""What the labels of a data set mean."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class LabelSpec:
    """The encoding of a data set's labels.

    Attributes:
      class_names: The name of class k at position k; labels are 0 .. len(class_names) - 1.
    """

    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
