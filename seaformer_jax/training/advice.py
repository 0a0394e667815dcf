"""BatchNorm groups that suit the devices."""


def advice(platform: str, chips: int, images: int, bn_groups: int) -> str:
    """Returns what to change so that the chips exchange less; "" if there is nothing.

    There is advice for TPUs only. Source: one layer compiled for TPU v5e, in experiments/results/tpu_program.md.
    BatchNorm groups that lie on one chip each cost a layer two collectives, forward and backward, which XLA combines
    with those of other layers; groups that span several chips cost more, each on the critical path. One group for all
    chips is left alone, because it is a choice: the statistics of the whole batch.

    Args:
        platform: Platform of the devices, such as "tpu".
        chips: Number of devices.
        images: Images of a microbatch, which divide among the chips.
        bn_groups: Number of BatchNorm groups, which divides the images.
    Returns:
        A line that names the better number of groups.
    """
    if platform != "tpu" or bn_groups == 1 or bn_groups % chips == 0:
        return ""
    return (
        f"model.bn_groups = {bn_groups} makes BatchNorm groups that span several of {chips} TPU chips, which have to "
        f"exchange their statistics in every layer; use {_whole_groups(bn_groups, images, chips)} (docs/pods.md)"
    )


def _whole_groups(bn_groups: int, images: int, chips: int) -> int:
    """Returns the number of groups nearest to `bn_groups` of which every chip has equally many as a whole."""
    whole = [groups for groups in range(chips, images + 1, chips) if images % groups == 0]
    return min(whole, key=lambda groups: abs(groups - bn_groups))
