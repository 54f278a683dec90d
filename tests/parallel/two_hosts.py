"""One of two processes, with two devices each: checks what they tell each other; then the second one fails."""

import time

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.parallel.exchange import gathered, is_first, local_rows, wait_for_all, whole
from m2io_jax.parallel.hosts import find_place, together
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.sharding import place_batch


def main() -> None:
    me = jax.process_index()
    assert jax.process_count() == 2 and jax.device_count() == 4 and is_first() == (me == 0)
    mine = {"reasons": ["too long"] * (1 + 40 * me), "mean": 0.1 + me}
    assert gathered(mine)[me] == mine and [each["mean"] for each in gathered(mine)] == [0.1, 1.1]
    mesh = make_mesh(MeshConfig(fsdp=2))
    rows = np.arange(24, dtype=np.float32).reshape(8, 3)
    own = rows[4 * me : 4 * me + 4]
    placed = place_batch(own, mesh)
    assert placed.shape == (8, 3)
    np.testing.assert_array_equal(local_rows(placed), own)
    np.testing.assert_array_equal(whole(placed), rows)
    np.testing.assert_array_equal(whole(jax.device_put(rows, NamedSharding(mesh, PartitionSpec()))), rows)
    try:
        make_mesh(MeshConfig(data=1, tensor=4))
    except UserError as error:
        assert "2 processes cannot each have rows" in str(error)
    wait_for_all("checked")
    print("all is as it should be", flush=True)
    if me == 1:
        raise UserError("The dog ate the data.")
    time.sleep(60)  # as in a collective that the other will never enter


if __name__ == "__main__":
    with together(find_place()):
        main()
