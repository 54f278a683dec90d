"""`m2io convert`: published weights into a policy's folder and a policy out of a run; both are Hugging Face folders."""

import shutil
from pathlib import Path

from m2io_jax.errors import UserError
from m2io_jax.models.policy import ADAPTER_FOLDER, load_policy, policy_folder, with_adapter_of
from m2io_jax.models.weights import WeightType


def import_folder(source: Path, folder: Path, *, adapter: Path | None = None, dtype: WeightType | None = None) -> Path:
    """Reads published weights (every tensor once, every shape checked) and writes a policy's folder.

    Args:
        adapter: a PEFT folder to add.
        dtype: of the copy; None keeps that of the weights.

    Raises:
        UserError: the source is no folder of a model we have, its weights do not fit its config.json, or the folder
            holds something already.
    """
    _require_empty(folder)
    policy = load_policy(str(source), size=None, dtype=dtype)
    if adapter is not None:
        policy = with_adapter_of(policy, adapter)
    policy.save(folder, dtype or policy.dtype)
    return folder


def export_folder(run: Path, folder: Path, *, adapter: bool = False, dtype: WeightType = "bfloat16") -> Path:
    """Writes a run's policy as a folder that transformers and vLLM load, adapters added to the weights.

    Args:
        adapter: write the adapters alone, as a PEFT folder.

    Raises:
        UserError: there is no policy, it has no adapters, or the folder holds something already.
    """
    _require_empty(folder)
    if not adapter:
        load_policy(str(run), size=None).without_adapters().save(folder, dtype)
        return folder
    found = policy_folder(run) / ADAPTER_FOLDER
    if not found.is_dir():
        raise UserError("This policy has no adapters.", where=str(run), mend="export it without --adapter")
    try:
        shutil.copytree(found, folder, dirs_exist_ok=True)
    except OSError as error:
        mend = "make room or allow writing there"
        raise UserError(f"The adapter cannot be written: {error}.", where=str(folder), mend=mend) from error
    return folder


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("There is something here already.", where=str(folder), mend="give a folder that does not exist")
