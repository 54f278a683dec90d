"""What services know a run as: the same from start to start."""

import pytest

from m2io_jax.errors import UserError
from m2io_jax.training.logging.identity import IDENTITY_FILE, remembered_id


def test_an_id_is_made_once_for_each_service(tmp_path):
    made = iter("abc")
    ids = [remembered_id(tmp_path, service, lambda: next(made)) for service in ("wandb", "mlflow", "wandb", "mlflow")]
    assert ids == ["a", "b", "a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == [IDENTITY_FILE]


@pytest.mark.parametrize("text", ["{", "[1]", '{"wandb": 3}'])
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / IDENTITY_FILE).write_text(text)
    with pytest.raises(UserError, match=IDENTITY_FILE):
        remembered_id(tmp_path, "wandb", lambda: "a")
