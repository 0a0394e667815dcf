"""The three steps from a camera's picture to labels, in NumPy and the runtime of a bundle."""

import importlib

import numpy as np

from convert.bundle import Bundle
from convert.labels import class_map


class ImagePipeline:
    """Pre-processing, network and post-processing.

    Attributes:
        reference: float32 [1, H, W, 3], the bundle's reference input.
        network: float32 [1, H, W, 3] -> what the bundle's model returns, channels last.
    """

    def __init__(self, bundle: Bundle, threads: int):
        self._bundle = bundle
        self._scale, self._offset = normalization(bundle)
        self.reference, _ = bundle.reference()
        self.network = importlib.import_module(f"convert.runtimes.{bundle.format}").load(bundle, threads)

    def image(self) -> np.ndarray:
        """uint8 [H, W, 3], RGB: the picture nearest to the reference input."""
        return picture(self._bundle)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] of the input's size -> float32 [1, H, W, 3], normalised unless the model does that."""
        prepared = np.multiply(image, self._scale, dtype=np.float32)
        prepared -= self._offset
        return prepared[None]

    def finish(self, output: np.ndarray) -> np.ndarray | int:
        """Logits -> class, or labels uint8 [H, W] at the size of the input."""
        match self._bundle.output:
            case "labels":
                return output
            case "logits8":
                return class_map.argmax_upsample(np.ascontiguousarray(output[0]), self._bundle.input_size)
        return output[0].argmax(axis=-1).astype(np.uint8)


def normalization(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale and offset, float32 [3]: the network takes uint8 * scale - offset."""
    mean, std = (np.array(value, np.float32) for value in bundle.normalization or ((0, 0, 0), (1, 1, 1)))
    return 1 / (255 * std), mean / std


def picture(bundle: Bundle) -> np.ndarray:
    """uint8 [H, W, 3], RGB: the picture nearest to the reference input of a bundle."""
    scale, offset = normalization(bundle)
    reference, _ = bundle.reference()
    return np.clip(np.rint((reference[0] + offset) / scale), 0, 255).astype(np.uint8)
