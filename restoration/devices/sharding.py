"""The mesh and the two shardings: state on every device, batch split."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from restoration.base import errors


def make_mesh(*, local: bool = False) -> Mesh:
    """Returns a mesh of one axis, `data`, over all devices of all processes.

    The axis is Auto: with JAX's default, Explicit, a pixel-shuffle reshape raises
    ShardingTypeError.

    Args:
      local: use only the devices of this process.
    """
    devices = jax.local_devices() if local else jax.devices()
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the training state: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies arrays to all devices. Every process must hold the same arrays.

    Unlike `jax.device_put`, this does not send the arrays between the processes to
    compare them.

    Args:
      tree: of arrays on the host.
      mesh: see `make_mesh`.

    Returns:
      The tree with replicated arrays.
    """
    whole = replicated(mesh)
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(whole, np.asarray(rows)),
        tree,
    )


def keep_local(tree: Any, mesh: Mesh) -> Any:
    """Returns replicated arrays on the devices of this process only.

    Args:
      tree: of arrays replicated over any mesh.
      mesh: of this process's devices.

    Returns:
      The tree with its arrays replicated over that mesh.
    """

    def held(leaf: Any) -> Any:
        spread = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        return leaf.addressable_data(0) if spread else leaf

    return jax.device_put(jax.tree.map(held, tree), replicated(mesh))


def check_batch_size(batch_size: int) -> None:
    """Raises InputError unless the devices can share a batch evenly."""
    if batch_size % jax.device_count():
        raise errors.InputError(
            f"--batch_size={batch_size}: must be a multiple of the "
            f"{jax.device_count()} devices"
        )
