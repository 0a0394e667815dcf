"""Settings that suit the devices: what to change so that TPU chips move and exchange less.

Source: programs compiled for TPU v5e, in experiments/results/tpu_program.json.
"""

from collections.abc import Iterator, Sequence

from seaformer_jax.models import bands

_SMALL = 2**19  # Pixels of all images of a chip whose first feature maps fit into its fast memory.


def advice(platform: str, chips: int, images: int, heights: Sequence[int], bn_groups: int) -> Iterator[str]:
    """Yields a line for each setting that should be changed. There is advice for TPUs only.

    Args:
        platform: Platform of the devices, such as "tpu".
        chips: Number of devices.
        images: Images of a microbatch, which divide among the chips.
        heights: Heights that the images may have, in pixels.
        bn_groups: Number of BatchNorm groups, which divides the images.
    """
    if platform != "tpu":
        return
    on_a_chip = images // chips
    if not all(_suits(on_a_chip, height) for height in heights):
        yield (
            f"{on_a_chip} images on each of {chips} TPU chips leave lanes empty, which costs two to three times the "
            f"memory traffic per image; {_suiting(on_a_chip, heights)} on each would not (docs/pods.md)"
        )
    # XLA combines the sums over chips of all layers if each BatchNorm group lies on one chip. Groups on several chips
    # need sums in every layer, one after the other. One group for all chips is left alone, because it is a choice:
    # the statistics of the whole batch.
    if bn_groups != 1 and bn_groups % chips:
        better = _whole_groups(bn_groups, images, chips)
        yield (
            f"model.bn_groups = {bn_groups} makes BatchNorm groups that span several of {chips} TPU chips, which "
            f"exchange their statistics in every layer; use {better} (docs/pods.md)"
        )


def _suits(images: int, height: int) -> bool:
    """Whether images and bands on a chip take whole sets of lanes or half of one, or are few and small.

    The first blocks at 224 pixels move at most 27 MB per image with 8, 16, 32, 64, 128 and 256 images on a chip, but
    51 MB with 96 and 56 MB with 192. At 800 x 1344 pixels, 8 images of 4 bands move 2.2 GB each, of 16 bands 0.8 GB.
    """
    lanes = images * bands.fitting(images, height)
    fill = lanes in (bands.LANES // 2, bands.LANES) or lanes % bands.LANES == 0
    return fill or images * height**2 <= _SMALL


def _suiting(images: int, heights: Sequence[int]) -> int:
    """Returns the number of images on a chip that suits it, nearest to `images`; the larger one of two."""
    candidates = range(2 * max(images, bands.LANES), 0, -1)
    suiting = [number for number in candidates if all(_suits(number, height) for height in heights)]
    return min(suiting, key=lambda number: abs(number - images))


def _whole_groups(bn_groups: int, images: int, chips: int) -> int:
    """Returns the number of groups nearest to `bn_groups` of which every chip has equally many as a whole."""
    whole = [groups for groups in range(chips, images + 1, chips) if images % groups == 0]
    return min(whole, key=lambda groups: abs(groups - bn_groups))
