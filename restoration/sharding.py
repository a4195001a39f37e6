"""The mesh and the two shardings: state on every device, batch split."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from restoration import errors


def make_mesh() -> Mesh:
    """Returns a mesh of one axis, `data`, over all devices of all processes.

    The axis is Auto: with JAX' default, Explicit, a pixel-shuffle reshape
    raises ShardingTypeError.
    """
    return jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the training state."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(batch_size: int) -> None:
    """Raises InputError unless the devices can share a batch evenly."""
    if batch_size % jax.device_count():
        raise errors.InputError(
            f"--batch_size={batch_size}: must be a multiple of the "
            f"{jax.device_count()} devices"
        )
