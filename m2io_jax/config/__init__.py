"""The configuration of a run: its sections, the whole, and the files it is read from."""

from m2io_jax.config.data import DataConfig, SingleConfig
from m2io_jax.config.files import load_config, parse_config, parse_override, read_settings, set_setting
from m2io_jax.config.grpo import GRPOConfig, RolloutConfig
from m2io_jax.config.ppo import PPOConfig
from m2io_jax.config.resume import require_resumable, resume_differences
from m2io_jax.config.run import RunConfig
from m2io_jax.config.sections import (
    BatchConfig,
    CheckpointConfig,
    ComputationSection,
    EvaluateConfig,
    LoggingConfig,
    LoraSection,
    MeshConfig,
    OptimizerConfig,
)

__all__ = [
    "BatchConfig",
    "CheckpointConfig",
    "ComputationSection",
    "DataConfig",
    "EvaluateConfig",
    "GRPOConfig",
    "LoggingConfig",
    "LoraSection",
    "MeshConfig",
    "OptimizerConfig",
    "PPOConfig",
    "RolloutConfig",
    "RunConfig",
    "SingleConfig",
    "load_config",
    "parse_config",
    "parse_override",
    "read_settings",
    "require_resumable",
    "resume_differences",
    "set_setting",
]
