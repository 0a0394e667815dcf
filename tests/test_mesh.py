"""Checks of the batch size go by the mesh, not by the devices of this machine."""

import pytest
from jax.sharding import AbstractMesh

from seaformer_jax import mesh as meshes
from seaformer_jax.errors import UserError


def test_a_batch_divides_among_the_devices_of_the_mesh():
    mesh = AbstractMesh((3,), ("data",))  # This process has one device.
    meshes.check_batch_size(mesh, 6, 2)
    with pytest.raises(UserError, match=r"batch_size = 8 .* 3 devices x 2 microbatches; use 6 or 12"):
        meshes.check_batch_size(mesh, 8, 2)
