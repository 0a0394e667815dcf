"""Batch sizes and BatchNorm groups that suit the devices."""

# Images that a TPU chip works on at once: where there are as many, XLA lays them along the lanes of its vector unit.
_LANES = 128


def advice(platform: str, chips: int, batch_size: int, microbatches: int, bn_groups: int) -> list[str]:
    """Returns what to change so that the chips move fewer bytes and exchange less; [] if there is nothing.

    There is advice for TPUs only. Source: the training step compiled for TPU v5e, in docs/accelerators.md. At 64
    images per chip it moves three times as many bytes per image as at 128 or 256. BatchNorm groups that lie on one
    chip each cost a layer two collectives, forward and backward; groups that span several chips cost six. One group
    for all chips is left alone, because it is a choice: the statistics of the whole batch.

    Args:
        platform: Platform of the devices, such as "tpu".
        chips: Number of devices.
        batch_size: Number of images of the global batch, which divides among chips and microbatches.
        microbatches: Number of microbatches per step.
        bn_groups: Number of BatchNorm groups, which divides the images of a microbatch.
    Returns:
        One line per setting that another value would suit better; it names this value.
    """
    if platform != "tpu":
        return []
    images = batch_size // microbatches
    lines = []
    if images // chips % _LANES:
        lines.append(
            f"batch_size = {batch_size} puts {images // chips} images on each of {chips} TPU chips at a time, and "
            f"only a multiple of {_LANES} fills their lanes: fewer move up to three times the bytes per image; use "
            f"{_full_batches(batch_size, chips * microbatches * _LANES)} (docs/accelerators.md)"
        )
    if bn_groups > 1 and bn_groups % chips:
        lines.append(
            f"model.bn_groups = {bn_groups} makes BatchNorm groups that span several of {chips} TPU chips, which "
            f"costs six collectives per layer instead of two; use {_whole_groups(bn_groups, images, chips)} "
            "(docs/accelerators.md)"
        )
    return lines


def _full_batches(batch_size: int, full: int) -> str:
    """Returns the multiples of `full` next to `batch_size`."""
    lower = batch_size // full * full
    return f"{lower} or {lower + full}" if lower else f"{full}, or fewer chips"


def _whole_groups(bn_groups: int, images: int, chips: int) -> int:
    """Returns the number of groups nearest to `bn_groups` of which every chip has equally many as a whole."""
    whole = [groups for groups in range(chips, images + 1, chips) if images % groups == 0]
    return min(whole, key=lambda groups: abs(groups - bn_groups))
