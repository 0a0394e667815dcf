"""The pipeline from a camera image to labels: its three steps, in NumPy and the runtime of a bundle."""

import numpy as np

from convert.bundle import Bundle
from convert.labels import boxes, class_map
from convert.runtimes import registry


class ImagePipeline:
    """The pipeline of one bundle, as three steps that can be timed one by one.

    1. Pre-processing: `prepare` normalises the image.
    2. Network: `network` runs the model file.
    3. Post-processing: `finish` turns the output into a class, a label map or boxes.

    Attributes:
        reference: The bundle's reference input, [1, H, W, 3] of `Bundle.input_type`.
        network: The network step. It takes such an input and returns the model's output, channels last.
    """

    def __init__(self, bundle: Bundle, threads: int):
        self._bundle = bundle
        self._scale, self._offset = normalization(bundle)
        self.reference, _ = bundle.reference()
        self._decoding = (
            boxes.Decoding(tuple(bundle.input_size), **bundle.decoding) if bundle.decoding else None
        )
        self.network = registry.load(bundle, threads)

    def image(self) -> np.ndarray:
        """Returns the RGB image closest to the reference input, uint8 [H, W, 3]: the input of the pipeline."""
        return picture(self._bundle)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Pre-processing: scales an image to [0, 1] and normalises it, unless the model normalises its input itself.

        Args:
            image: uint8 [H, W, 3], of the network's input size.

        Returns:
            The network's input, [1, H, W, 3] of `Bundle.input_type`.
        """
        if self._bundle.input_type == "uint8":
            return image[None]
        prepared = np.multiply(image, self._scale, dtype=np.float32)
        prepared -= self._offset  # In place, so that only one float32 image is allocated.
        return prepared[None]

    def finish(self, output: np.ndarray) -> np.ndarray | boxes.Boxes:
        """Post-processing: returns the class of the image, its label map at the size of the input, or its boxes.

        Args:
            output: The network's output: labels [1, H, W], logits8 [1, h, w, C], logits [1, C] or [1, H, W, C], or a
                detector's head [1, A, C + 4].

        Returns:
            `output` itself if the model already returns labels; else integers [H, W] for segmentation, an integer []
            for classification, and boxes in pixels of the input for detection.
        """
        match self._bundle.output:
            case "labels":
                return output
            case "logits8":
                return class_map.argmax_upsample(np.ascontiguousarray(output[0]), self._bundle.input_size)
            case "head":
                return boxes.decode(output[0], self._decoding)
        return output[0].argmax(axis=-1)


def normalization(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Returns scale and offset, float32 [3] each: the network's input is uint8 image * scale - offset.

    This is (image / 255 - mean) / std in one multiplication and one subtraction. A model that normalises its input
    itself takes images in [0, 1], that is mean 0 and standard deviation 1.
    """
    mean, std = (np.array(value, np.float32) for value in bundle.normalization or ((0, 0, 0), (1, 1, 1)))
    return 1 / (255 * std), mean / std


def picture(bundle: Bundle) -> np.ndarray:
    """Returns the RGB image closest to a bundle's reference input, uint8 [H, W, 3].

    It inverts the pre-processing. Values that no uint8 image can hold are clipped.
    """
    scale, offset = normalization(bundle)
    reference, _ = bundle.reference()
    if reference.dtype == np.uint8:
        return reference[0]
    return np.clip(np.rint((reference[0] + offset) / scale), 0, 255).astype(np.uint8)
