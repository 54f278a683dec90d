"""`m2io convert`: published folders in, runs out; what stands beside the weights is kept byte by byte."""

import json
import shutil
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from hugging_face_reference import FAMILIES, FOLDER, MAIN, case, inputs
from reference_model import FORWARD, close, logits, params, prompts
from safetensors.numpy import load_file
from test_lora import adapted
from test_lora import logits as adapted_logits
from tokenizers import Tokenizer, models, trainers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from m2io_jax.cli import app
from m2io_jax.errors import UserError
from m2io_jax.models.conversion import export_folder, import_folder
from m2io_jax.models.peft import save_adapter
from m2io_jax.models.policy import BASE, Policy, load_policy
from m2io_jax.models.tokenizer import SPECIAL


def small_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with no more tokens than the reference models have embeddings."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(["a sentence"] * 3, trainers.BpeTrainer(vocab_size=40, special_tokens=list(SPECIAL)))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="module", params=FAMILIES)
def published(request, tmp_path_factory):
    """A folder as it is downloaded: weights, config, tokenizer, and files that only others read."""
    folder = tmp_path_factory.mktemp(request.param)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(FOLDER / request.param / name, folder / name)
    small_tokenizer().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"min_pixels": 3136, "kept": "as it is"}\n')
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 0], "temperature": 0.1}\n')
    (folder / "README.md").write_text("is not needed")
    return folder


def test_in_and_out_is_exact(published, tmp_path):
    import_folder(published, tmp_path / "in")
    export_folder(tmp_path / "in", tmp_path / "out", dtype="float32")
    original = load_file(published / "model.safetensors")
    for folder in ("in", "out"):
        stored = load_file(tmp_path / folder / "model.safetensors")
        assert stored.keys() == original.keys()
        for name, tensor in original.items():
            np.testing.assert_array_equal(stored[name], tensor)
        for file in published.iterdir():
            if file.name not in ("config.json", "model.safetensors", "README.md"):
                assert (tmp_path / folder / file.name).read_bytes() == file.read_bytes(), file.name
        assert not (tmp_path / folder / "README.md").exists()


def test_a_published_folder_is_a_policy_as_it_is(published):
    policy = load_policy(str(published), size=None)
    family = json.loads((published / "config.json").read_text())["model_type"]
    jax.tree.map(np.testing.assert_array_equal, policy.params, params(family))
    with pytest.raises(UserError, match="not of size `tiny`"):
        load_policy(str(published))


def test_what_ships_is_a_published_folder_too(tmp_path):
    written = import_folder(BASE, tmp_path / "base")
    assert {path.name for path in written.iterdir()} == {path.name for path in BASE.iterdir()}
    for path in BASE.iterdir():
        assert (written / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_folder_in_use_is_not_written_over(published, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for convert in (import_folder, export_folder):
        with pytest.raises(UserError, match="something here already"):
            convert(published, tmp_path)
    with pytest.raises(UserError, match="has no adapters"):
        export_folder(published, tmp_path / "out", adapter=True)


def test_a_tokenizer_of_another_model_is_refused(published, tmp_path):
    shutil.copytree(published, tmp_path / "mixed")
    raw = json.loads((tmp_path / "mixed" / "config.json").read_text())
    (tmp_path / "mixed" / "config.json").write_text(json.dumps(raw | {"vision_start_token_id": 9}))
    with pytest.raises(UserError, match="<.vision_start.> is 3, config.json says 9"):
        import_folder(tmp_path / "mixed", tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_a_disk_that_fills_up_leaves_the_former_policy(published, tmp_path, monkeypatch):
    policy = load_policy(str(published), size=None)
    policy.save(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(UserError, match="No space left"):
        policy.save(tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_adapters_travel_with_the_policy(published, tmp_path):
    family = json.loads((published / "config.json").read_text())["model_type"]
    filled = adapted(family, filled=True)
    save_adapter(tmp_path, filled.params, filled.config)
    import_folder(published, tmp_path / "in", adapter=tmp_path)
    batch, length = prompts(family, MAIN), len(case(MAIN).rows[0])
    expected = adapted_logits(filled, batch)[:, :length]
    loaded = load_policy(str(tmp_path / "in"), size=None)
    np.testing.assert_array_equal(adapted_logits(loaded, batch)[:, :length], expected)

    export_folder(tmp_path / "in", tmp_path / "adapter", adapter=True)
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip
    export_folder(tmp_path / "in", tmp_path / "out", dtype="float32")
    assert not (tmp_path / "out" / "adapter").exists()
    merged: Policy = load_policy(str(tmp_path / "out"), size=None)
    close(logits(family, merged.params, batch)[:, :length], expected, FORWARD)


def test_the_command(published, tmp_path):
    run = CliRunner().invoke
    assert run(app, ["convert", "import", str(published), str(tmp_path / "in")]).exit_code == 0
    done = run(app, ["convert", "export", str(tmp_path / "in"), str(tmp_path / "out")])
    assert done.exit_code == 0 and str(tmp_path / "out") in done.stdout.replace("\n", "")
    raw = json.loads((tmp_path / "out" / "config.json").read_text())
    assert raw["torch_dtype"] == "bfloat16" and raw["architectures"]
    wrong = run(app, ["convert", "export", str(tmp_path / "in"), str(tmp_path / "more"), "--dtype", "int8"])
    assert isinstance(wrong.exception, UserError) and "int8" in str(wrong.exception)


def test_what_is_exported_is_bounded_as_the_run_was(published, tmp_path):
    shutil.copytree(published, tmp_path / "run" / "model")
    (tmp_path / "run" / "config.yaml").write_text("batch: {max_pixels: 784}")
    export_folder(tmp_path / "run", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert settings == {"min_pixels": 784, "max_pixels": 784, "kept": "as it is"}


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("with_adapters", [False, True])
def test_transformers_loads_the_export_and_computes_the_same(published, with_adapters, tmp_path):
    import torch
    import transformers

    family = json.loads((published / "config.json").read_text())["model_type"]
    filled = adapted(family, filled=with_adapters)
    if with_adapters:
        save_adapter(tmp_path, filled.params, filled.config)
        import_folder(published, tmp_path / "in", adapter=tmp_path)
    export_folder(tmp_path / "in" if with_adapters else published, tmp_path / "out", dtype="float32")
    model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.no_grad():
        expected = model.eval()(**inputs(MAIN)).logits.numpy()
    length = len(case(MAIN).rows[0])
    close(adapted_logits(filled, prompts(family, MAIN))[:, :length], expected[:, :length], FORWARD)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids("<|image_pad|>") == 5
