"""What depends on devices goes by the mesh, not by the devices of this machine."""

import jax
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from seaformer_jax import mesh as meshes
from seaformer_jax.errors import UserError


def test_a_batch_divides_among_the_devices_of_the_mesh():
    mesh = AbstractMesh((3,), ("data",))  # This process has one device.
    meshes.check_batch_size(mesh, 6, 2)
    with pytest.raises(UserError, match=r"batch_size = 8 .* 3 devices x 2 microbatches; use 6 or 12"):
        meshes.check_batch_size(mesh, 8, 2)


@pytest.mark.parametrize(("axis", "devices"), [(AxisType.Auto, 3), (AxisType.Manual, 1)])
def test_layers_know_the_devices_that_share_their_batch(axis, devices):
    # Inside `jax.shard_map` the axis is manual: a layer sees the rows of one device.
    mesh = AbstractMesh((3,), ("data",), axis_types=(axis,), abstract_device=AbstractDevice("v5e", 1, "tpu"))
    with jax.sharding.use_abstract_mesh(mesh):
        assert (meshes.batch_devices(), meshes.platform()) == (devices, "tpu")
    assert (meshes.batch_devices(), meshes.platform()) == (1, "")
