"""Maps the arrays of an attention module to the official PyTorch names and layouts.

The official code of each kind is named in its file in `seaformer_jax/models/attention/`. A module that is not in the
table has the same name in PyTorch and is a linear layer there.
"""

import functools

Layout = tuple[
    tuple[int, ...], tuple[int, ...]
]  # Axes of the JAX array in PyTorch's order, and the shape there.

# Module -> its official name, and how many axes of size 1 PyTorch's kernel has: 2 for a 1x1 convolution of maps.
_SEA = {
    "to_q": ("to_q", 2),
    "to_k": ("to_k", 2),
    "to_v": ("to_v", 2),
    "project": ("proj.1", 2),
    "row/encode": ("proj_encode_row.1", 2),
    "row/query_position": ("pos_emb_rowq", 0),
    "row/key_position": ("pos_emb_rowk", 0),
    "column/encode": ("proj_encode_column.1", 2),
    "column/query_position": ("pos_emb_columnq", 0),
    "column/key_position": ("pos_emb_columnk", 0),
    # The official code has neither SeaFormer++ nor the ablations of detail enhancement; these names are ours.
    "squeeze/map": ("squeeze_map", 2),
    "expand/map": ("expand_map", 2),
    "to_detail": ("to_detail", 2),
    "detail_depthwise": ("dwconv", 0),
    "detail_pointwise": ("pwconv", 2),
}
_AXIAL_SUM = {
    f"along_{axis}/{layer}": (f"axial_attentions.{index}.fn.{layer}", 0)
    for index, axis in enumerate(("height", "width"))
    for layer in ("to_q", "to_kv", "to_out")
}
_AXIAL_DEEPLAB = {
    f"{ours}{layer}": (f"{theirs}{name}", 1)
    for ours, theirs in (("along_height", "hight_block"), ("along_width", "width_block"))
    for layer, name in {
        "": "",
        "/qkv": ".qkv_transform",
        "/qkv_bn": ".bn_qkv",
        "/logit_bn": ".bn_similarity",
        "/output_bn": ".bn_output",
    }.items()
}
_ACMIX = {
    "path/fc": ("fc", 2),
    "path": ("dep_conv", 0),
    "query": ("conv1", 2),
    "key": ("conv2", 2),
    "value": ("conv3", 2),
    "position": ("conv_p", 2),
}
_MIXFORMER = {
    "attention_in": ("proj_attn", 0),
    "attention_in_norm": ("proj_attn_norm", 0),
    "conv_in": ("proj_cnn", 0),
    "conv_in_norm": ("proj_cnn_norm", 0),
    "depthwise": ("dwconv3x3.0", 0),
    "depthwise_bn": ("dwconv3x3.1", 0),
    "channel_gate/reduce": ("channel_interaction.0", 2),
    "channel_gate/norm": ("channel_interaction.1", 0),
    "channel_gate/expand": ("channel_interaction.3", 2),
    "conv_out": ("projection", 2),
    "conv_out_bn": ("conv_norm", 0),
    "spatial_gate/reduce": ("spatial_interaction.0", 2),
    "spatial_gate/norm": ("spatial_interaction.1", 0),
    "spatial_gate/expand": ("spatial_interaction.3", 2),
    "attention_out_norm": ("attn_norm", 0),
}
_MODULES = _SEA | _AXIAL_SUM | _AXIAL_DEEPLAB | _ACMIX | _MIXFORMER
# The name of an array in its module. BatchNorm and convolution of a `ConvBN` are called bn and c.
LEAVES = {
    "conv/kernel": "c.weight",
    "bn/scale": "bn.weight",
    "bn/bias": "bn.bias",
    "bn/mean": "bn.running_mean",
    "bn/var": "bn.running_var",
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
    "table": "pos_embed",
    "bias_table": "relative_position_bias_table",
}


def locate(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, Layout]:
    """Returns the official name and the layout of the array at `path` inside an attention module.

    Args:
        path: For example ("qkv", "kernel") or ("row", "encode", "bn", "scale").
        shape: Shape in JAX.
    """
    pair = len(path) > 1 and path[-2] in ("conv", "bn")
    module, leaf = path[: -1 - pair], "/".join(path[-1 - pair :])
    name, ones = _MODULES.get("/".join(module), (".".join(module), 0))
    return ".".join(filter(None, (name, LEAVES.get(leaf, leaf)))), _layout(path[-1], shape, ones)


@functools.cache
def _layout(leaf: str, shape: tuple[int, ...], ones: int) -> Layout:
    if leaf == "table":  # [positions, C] -> [1, C, positions]
        return (1, 0), (1, shape[1], shape[0])
    if leaf != "kernel":
        return tuple(range(len(shape))), shape
    if len(shape) == 2:
        return (1, 0), (shape[1], shape[0], *(1,) * ones)
    return kernel_layout(shape)


def kernel_layout(shape: tuple[int, ...]) -> Layout:
    """Returns the layout of a k x k kernel."""
    if len(shape) == 3:  # depthwise [k, k, C] -> [C, 1, k, k]
        return (2, 0, 1), (shape[2], 1, shape[0], shape[1])
    return (3, 2, 0, 1), (shape[3], shape[2], shape[0], shape[1])  # [k, k, in, out] -> [out, in, k, k]
