"""What lies in a folder in place of readable weights is named as the cause, before any list of tensors."""

import json
import shutil

import jax
import numpy as np
import pytest
from hugging_face_reference import FAMILIES, FOLDER
from reference_model import config
from safetensors.numpy import load_file, save_file

from m2io_jax.config import MeshConfig
from m2io_jax.errors import UserError
from m2io_jax.models.companions import read_folder
from m2io_jax.models.conversion import export_folder, import_folder
from m2io_jax.models.policy import BASE, load_policy
from m2io_jax.models.weight_files import require_weights
from m2io_jax.models.weights import load_weights
from m2io_jax.parallel.mesh import make_mesh

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3968658944\n"


def folder_of(path, *files, **contents):
    """The base's folder without its weights, with these files in their place."""
    shutil.copytree(BASE, path)
    (path / "model.safetensors").unlink()
    for name in files:
        (path / name).write_bytes(b"x" * 100)
    return path


@pytest.mark.parametrize(
    "files, says",
    [
        (["pytorch_model.bin"], "PyTorch's pickle format .pytorch_model.bin.*save_pretrained"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], "PyTorch's pickle format"),
        (["model.pt"], "PyTorch's pickle format .model.pt"),
        (["consolidated.00.pth"], "PyTorch's pickle format"),
        (["qwen2.5-vl-3b-q4_k_m.gguf"], "GGUF"),
        (["tf_model.h5"], "TensorFlow or Flax"),
        (["rng_state_0.pth", "scheduler.pt", "zero_to_fp32.py"], "shards of a training run .zero_to_fp32.py"),
        (["optimizer.pt", "rng_state.pth", "training_args.bin"], "neither model.safetensors nor"),
        (["optimizer.pt", "pytorch_model.bin"], "PyTorch's pickle format .pytorch_model.bin."),
        (["optimizer.pt", "model-00001-of-00002.safetensors"], "no model.safetensors.index.json for model-00001"),
        (["model-00001-of-00002.safetensors"], "no model.safetensors.index.json for model-00001"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter alone.*--adapter"),
        (["model.safetensors.index.json.part"], "neither model.safetensors nor model.safetensors.index.json"),
        ([], "neither model.safetensors nor"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [load_policy, import_folder, export_folder])
def test_another_format_is_named(files, says, read, tmp_path):
    source = folder_of(tmp_path / "source", *files)
    with pytest.raises(UserError, match=f"(?s){says}") as caught:
        read(str(source)) if read is load_policy else read(source, tmp_path / "out")
    assert "model.layers" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json",
                                  "preprocessor_config.json", "tokenizer_config.json"])  # fmt: skip
def test_a_git_lfs_pointer_is_named(name, tmp_path):
    source = shutil.copytree(BASE, tmp_path / "source")
    (source / name).write_text(POINTER)
    with pytest.raises(UserError, match=f"(?s)Git LFS pointer, not the file itself.*{name}.*git lfs pull"):
        load_policy(str(source))


@pytest.mark.parametrize(
    "cut, says",
    [
        (lambda whole: whole[:-1], "cut short: it has .* of .* bytes"),
        (lambda whole: whole[: len(whole) // 2], "cut short: it has .* of .* bytes"),
        (lambda whole: whole[:40], "not a safetensors file, or only the first part"),
        (lambda whole: b"", "not a safetensors file, or only the first part"),
        (lambda whole: b"<!DOCTYPE html><html>Sign in</html>", "not a safetensors file"),
        (lambda whole: b"\xff" * 64, "not a safetensors file"),
        (lambda whole: (2).to_bytes(8, "little") + b"[]", "not a safetensors file"),
    ],
)
def test_a_file_that_is_cut_short_or_no_safetensors(cut, says, tmp_path):
    source = shutil.copytree(BASE, tmp_path / "source")
    weights = source / "model.safetensors"
    weights.write_bytes(cut(weights.read_bytes()))
    with pytest.raises(UserError, match=f"(?s)weights cannot be read.*{says}.*model.safetensors"):
        load_policy(str(source))


def test_shards_that_are_missing_or_pointers(tmp_path):
    source = folder_of(tmp_path / "source")
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    index = {"weight_map": {f"tensor{number}": name for number, name in enumerate(names)}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"tensor0": np.zeros(3, np.float32)}, source / names[0])
    with pytest.raises(UserError, match=f"2 of 3 files are missing: {names[1]}, {names[2]}"):
        load_policy(str(source))
    for name in names[1:]:
        (source / name).write_text(POINTER)
    with pytest.raises(UserError, match=f"(?s)Git LFS pointer.*{names[1]}"):
        load_policy(str(source))


def test_two_sets_of_weights_are_refused(tmp_path):
    source = shutil.copytree(BASE, tmp_path / "source")
    shutil.copy(source / "model.safetensors", source / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="two sets of weights"):
        require_weights(source)
    index = {"weight_map": {"model.norm.weight": "model.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [path.name for path in require_weights(source)] == ["model.safetensors"]


def loaded(folder, tensors):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    return load_weights(folder, config(FAMILIES[0]), make_mesh(MeshConfig(data=1), jax.devices()[:1]))


@pytest.mark.parametrize(
    "change, says",
    [
        ({"model.layers.0.mlp.up_proj.weight.absmax": np.zeros(3, np.float32)}, "quantised, by bitsandbytes"),
        ({"model.layers.0.mlp.up_proj.SCB": np.zeros(3, np.float32)}, "quantised, by bitsandbytes"),
        ({"model.layers.0.mlp.up_proj.qweight": np.zeros((3, 3), np.int32)}, "quantised, by GPTQ or AWQ"),
        ({"model.layers.0.mlp.up_proj.scales": np.ones((3, 3), np.float16)}, "quantised, by MLX"),
        ({"model.layers.0.mlp.up_proj.weight_scale_inv": np.ones(1, np.float32)}, "quantised, by FP8"),
        ({"model.layers.0.mlp.up_proj.weight": np.zeros((48, 32), np.int8)}, "quantised: .* is I8"),
        ({"model.layers.0.mlp.up_proj.lora_A.default.weight": np.zeros((3, 3), np.float32)}, "not merged"),
        ({"model.layers.0.mlp.up_proj.base_layer.weight": np.zeros((3, 3), np.float32)}, "not merged"),
    ],
)
def test_what_makes_every_tensor_unknown_is_said_alone(change, says, tmp_path):
    tensors = load_file(FOLDER / FAMILIES[0] / "model.safetensors")
    with pytest.raises(UserError, match=says) as caught:
        loaded(tmp_path / "one", tensors | change)
    text = {name: tensor for name, tensor in tensors.items() if not name.startswith("visual.")}
    with pytest.raises(UserError, match="no tensor of a vision tower"):
        loaded(tmp_path / "text", text)
    assert "is missing" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "actor.model."])
def test_a_wrapper_around_every_name_is_said_alone(prefix, tmp_path):
    tensors = load_file(FOLDER / FAMILIES[0] / "model.safetensors")
    with pytest.raises(UserError, match=f"names begin with '{prefix}'") as caught:
        loaded(tmp_path / "one", {f"{prefix}{name}": tensor for name, tensor in tensors.items()})
    assert "is missing" not in str(caught.value)


def test_a_tokenizer_in_its_old_files_alone_is_told_how_to_be_converted(tmp_path):
    source = shutil.copytree(BASE, tmp_path / "source")
    (source / "tokenizer.json").rename(source / "vocab.json")
    with pytest.raises(UserError, match="(?s)no tokenizer here.*of vocab.json and merges.txt"):
        load_policy(str(source))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_in_place_of_its_folder_is_refused(name):
    with pytest.raises(UserError, match=f"(?s)a file, not the folder of a model.*{name}.*give {BASE}"):
        load_policy(str(BASE / name))


@pytest.mark.parametrize(
    "address", ["https://huggingface.co/org/name", "hf://org/name", "http://huggingface.co/org/name"]
)
def test_an_address_on_the_hub_is_told_how_to_be_downloaded(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="hf download org/name --local-dir name"):
        load_policy(address)


def test_a_path_below_the_home_folder_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(BASE, tmp_path / "models" / "mine")
    assert load_policy("~/models/mine").config.text.vocab_size == 1024


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-3B-Instruct", "org/model_1", "a/b"])
def test_a_name_on_the_hub_is_told_how_to_be_downloaded(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"hf download {name} --local-dir {name.split('/')[1]}"):
        load_policy(name)


@pytest.mark.parametrize("path", ["missing", "a/b/c", "/nowhere/at/all", "runs/mistyped"])
def test_a_path_that_is_missing_is_no_name_on_the_hub(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match="no model here") as caught:
        load_policy(path)
    assert "hf download" not in str(caught.value)


def test_a_folder_of_the_hugging_face_cache_names_its_snapshot(tmp_path):
    snapshot = tmp_path / "models--Qwen--Q" / "snapshots" / "abc"
    shutil.copytree(BASE, snapshot)
    with pytest.raises(UserError, match="give .*snapshots/abc"):
        load_policy(str(tmp_path / "models--Qwen--Q"))
    assert load_policy(str(snapshot)).config.text.vocab_size == 1024


def test_an_adapter_alone_is_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    for read in (lambda: load_policy(str(tmp_path)), lambda: import_folder(tmp_path, tmp_path / "out")):
        with pytest.raises(UserError, match=f"(?s)adapter alone.*--adapter {tmp_path}"):
            read()


def test_a_tokenizer_of_more_tokens_than_embeddings_is_refused(tmp_path):
    source = shutil.copytree(BASE, tmp_path / "source")
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    extra = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    tokenizer["added_tokens"] += [{"id": 1030, "content": "<|box|>"} | extra]
    tokenizer["model"]["vocab"]["<|box|>"] = 1030
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    says = r"1 of its tokens are beyond the 1024 rows of the embeddings: <.box.> \(1030\)"
    with pytest.raises(UserError, match=says):
        read_folder(source)


def test_a_tokenizer_without_the_chats_marks_is_refused(tmp_path):
    source = shutil.copytree(BASE, tmp_path / "source")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (source / name).read_text()
        (source / name).write_text(text.replace("<|im_end|>", "<|the_end|>"))
    with pytest.raises(UserError, match="<.im_end.> is not in it"):
        read_folder(source)
