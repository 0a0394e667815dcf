"""Lowers small parts of a model, forward and backward: seconds to compile, and the forms of the whole step."""

import types

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from configs import imagenet
from seaformer_jax import mesh as meshes
from seaformer_jax import tasks
from seaformer_jax.losses import pixel_cross_entropy
from seaformer_jax.models.blocks import ConvBN, Pointwise
from seaformer_jax.models.registry import create_model
from seaformer_jax.models.variables import split_model

_WIDTH, _SIDE = 64, 28  # A feature map of seaformer_tiny: channels, and pixels a side.
_CLASSES, _CROP = 150, 512  # Of ADE20K.


class Front(nnx.Module):
    """A backbone of which only the stem and the first two inverted residuals are left.

    One block alone would not do: the layouts that cost most appear between blocks.
    """

    def __init__(self, backbone: nnx.Module):
        self.backbone = backbone
        backbone.stages = backbone.stages[:1]
        backbone.stages[0].mobile = backbone.stages[0].mobile[:2]

    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        return self.backbone(images, train)[0]


def front(mesh: Mesh, batch_size: int, side: int) -> jax.stages.Lowered:
    """Returns the first layers of seaformer_tiny on bfloat16 images of `side` pixels; images have no gradient."""
    model = Front(create_model("seaformer_tiny", dtype="bfloat16").backbone)
    return _forward_backward(model, (batch_size, side, side, 3), mesh, arguments=(0,))


def conv_bn(mesh: Mesh, batch_size: int, groups: int) -> jax.stages.Lowered:
    """Returns a 1x1 convolution with BatchNorm in `groups` groups, on a feature map of tiny."""
    model = ConvBN(Pointwise(_WIDTH, _WIDTH, np.random.default_rng(0)), _WIDTH, groups=groups)
    return _forward_backward(model, (batch_size, _SIDE, _SIDE, _WIDTH), mesh, arguments=(0, 1))


def pixel_loss(mesh: Mesh, batch_size: int) -> jax.stages.Lowered:
    """Returns the last 1x1 convolution of a segmentation model, in float32, and its loss, with their gradients."""
    layer, side = Pointwise(_WIDTH, _CLASSES, np.random.default_rng(0)), _CROP // 8
    graphdef, (params, _) = nnx.graphdef(layer), jax.eval_shape(lambda: split_model(layer))

    def loss(params, x, labels):
        logits = nnx.merge(graphdef, params)(x.astype(jnp.float32))
        return pixel_cross_entropy(logits, labels).loss / labels.size

    whole, rows = meshes.replicated(mesh), meshes.batch_sharding(mesh)
    gradients = jax.jit(
        jax.value_and_grad(loss, (0, 1)),
        in_shardings=(whole, rows, rows),
        out_shardings=(whole, (whole, rows)),
    )
    x = jax.ShapeDtypeStruct((batch_size, side, side, _WIDTH), jnp.bfloat16)
    labels = jax.ShapeDtypeStruct((batch_size, _CROP, _CROP), jnp.uint8)
    with jax.set_mesh(mesh):
        return gradients.lower(params, x, labels)


def preparation(
    mesh: Mesh, batch_size: int, on_device: bool, crops: bool = False, size: str = "tiny"
) -> jax.stages.Lowered:
    """Returns what configs/imagenet.py does with the images of a batch before the model sees them.

    Args:
        mesh: Mesh of the devices.
        batch_size: Images of the global batch.
        on_device: Whether flips and RandAugment are part of it; otherwise only normalisation and erasing.
        crops: Whether crops of records of a short side of 256 pixels are resized, too.
        size: Size of the model; all but "tiny" have mixup.
    """
    values = imagenet.get_config(size)
    values.task.num_classes, values.augment.on_device = 1000, on_device
    values.data.source = "records" if crops else "folder"
    task = tasks.create(values)
    task.train_source = types.SimpleNamespace(short_side=256)
    (batch,), rows = task.example_batches(batch_size), meshes.batch_sharding(mesh)
    prepared = jax.jit(
        lambda batch, key: task.training_images(batch, key)[0], in_shardings=(rows, None), out_shardings=rows
    )
    with jax.set_mesh(mesh):
        return prepared.lower(batch, jax.eval_shape(lambda: jax.random.key(0)))


def _forward_backward(
    model: nnx.Module, shape: tuple[int, ...], mesh: Mesh, arguments: tuple[int, ...]
) -> jax.stages.Lowered:
    """Returns the gradient of a loss of the model's output, with the new running statistics.

    Args:
        model: Module that maps (x, train) to an array.
        shape: Shape of x, of type bfloat16; its first axis is spread over the mesh.
        mesh: Mesh of the devices.
        arguments: What is differentiated: 0 the parameters, 1 x.
    """
    graphdef = nnx.graphdef(model)
    params, batch_stats = jax.eval_shape(lambda: split_model(model))

    def loss(params, x, batch_stats):
        model = nnx.merge(graphdef, params, batch_stats)
        # Squares, so that the gradient of the output is an array, as that of later layers would be.
        mean = jnp.square(model(x, True).astype(jnp.float32)).mean()
        return mean, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    whole, rows = meshes.replicated(mesh), meshes.batch_sharding(mesh)
    gradients = jax.value_and_grad(loss, arguments, has_aux=True)
    # The loss and the statistics, then a gradient for each argument, sharded as the argument is.
    out = ((whole, whole), tuple((whole, rows)[argument] for argument in arguments))
    jitted = jax.jit(gradients, in_shardings=(whole, rows, whole), out_shardings=out)
    with jax.set_mesh(mesh):
        return jitted.lower(params, jax.ShapeDtypeStruct(shape, jnp.bfloat16), batch_stats)
