"""A run of which nothing exists but shapes: its trainer on the mesh of a topology that is not at hand."""

import os
from dataclasses import replace

import jax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from m2io_jax.config import RunConfig
from m2io_jax.errors import UserError
from m2io_jax.models.backends import suited
from m2io_jax.models.lora import is_adapter
from m2io_jax.models.policy import Policy, config_of
from m2io_jax.models.sizes import Computation, LoraConfig, ModelConfig
from m2io_jax.models.weights import declared
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.parallel.topologies import Topology
from m2io_jax.training.run import weight_type
from m2io_jax.training.trainer import Trainer, trainer_class


def as_on_tpu(config: RunConfig) -> RunConfig:
    """The configuration with what goes by the devices at hand settled as it is on TPUs.

    Completions are planned without their grammar: its tables are made of a tokenizer, which need not be at hand.
    """
    by = config.computation
    if by.attention == "auto":
        head_dim = config_of(config.init, config.model).text.head_dim
        by = by.model_copy(update={"attention": suited("tpu", by.dtype, head_dim)})
    if by.unroll is None:
        by = by.model_copy(update={"unroll": False})
    rollout = config.rollout.model_copy(update={"constrained": False})
    return config.model_copy(update={"computation": by, "rollout": rollout})


def model_of(config: RunConfig) -> ModelConfig:
    """The model that a run trains, as it computes it."""
    lora = config.lora and LoraConfig(**config.lora.model_dump())
    model = config_of(config.init, config.model)
    return replace(model, lora=lora, computation=Computation(**config.computation.model_dump()))


def abstract_policy(config: RunConfig) -> Policy:
    """The policy that a run starts from, its weights shapes alone; it has no tokenizer."""
    model = model_of(config)

    def stored(path: tuple, param: nnx.Variable) -> nnx.Variable:
        dtype = "float32" if is_adapter(path) else weight_type(config)
        return param.replace(jax.ShapeDtypeStruct(param.get_value().shape, dtype))

    flat = nnx.to_flat_state(declared(model))
    return Policy(model, nnx.from_flat_state([(path, stored(path, param)) for path, param in flat]), None)


def abstract_trainer(config: RunConfig, mesh: Mesh | AbstractMesh) -> Trainer:
    """Return the run's trainer with shapes for weights. Its `compile` takes its `abstract_state()`."""
    return trainer_class(config.objective)(config, abstract_policy(config), mesh)


def topology_mesh(config: RunConfig, topology: Topology) -> Mesh:
    """The run's mesh of a topology's devices.

    Raises:
        UserError: as `topology_devices`; or the mesh does not fit the topology.
    """
    return make_mesh(config.mesh, topology_devices(topology))


def topology_devices(topology: Topology) -> list[jax.Device]:
    """A topology's devices, as libtpu describes them.

    Raises:
        UserError: there is no libtpu, or it does not know the topology.
    """
    # Off Google Cloud there is no server to ask about the machine, and libtpu would wait for it. Nor is a TPU claimed,
    # which another program might want.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    more = {"num_slices": topology.slices} if topology.slices > 1 else {}
    if topology.hosts == 1:  # unasked, libtpu makes two hosts of eight chips; JAX 0.10's knows no host of one chip
        more["chips_per_host_bounds"] = (*map(int, topology.shape.split("x")), 1)[:3]
    try:
        import libtpu  # noqa: F401, what compiles for TPUs

        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.slice_name, **more)
    except ImportError:
        mend = "install the extra `tpu`, as in pip install -e '.[tpu]'; no TPU is needed"
        raise UserError("Plans are compiled by libtpu, which is not installed.", where="topology", mend=mend) from None
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise UserError(f"libtpu cannot describe {topology.name}: {said}.", where="topology") from error
    return found.devices
