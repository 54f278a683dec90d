"""A checkpoint with the dimensions of the 3B and random weights.

    write FOLDER | load FOLDER DEVICES DTYPE | import FOLDER

`load` prints, as JSON, the bytes of the arrays it placed and the most memory it held above them; `import` the most
memory that `m2io convert import` held.
"""

import json
import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def write(folder: Path) -> None:
    import jax.numpy as jnp
    from safetensors.numpy import save_file

    from m2io_jax.models.huggingface import json_bytes, write_config
    from m2io_jax.models.sizes import SIZES
    from m2io_jax.models.weights import matches

    random, files, where = np.random.default_rng(0), [{}], {}
    block = (random.normal(size=1 << 20) * 0.02).astype(jnp.bfloat16)
    for match in matches(SIZES["3b"]).values():
        for name in match.theirs:
            if sum(tensor.nbytes for tensor in files[-1].values()) > 1 << 30:
                save_file(files[-1], folder / f"part-{len(files)}.safetensors")
                files[-1] = {}
                files.append({})
            where[name] = f"part-{len(files)}.safetensors"
            files[-1][name] = np.resize(np.roll(block, len(where)), match.their_shape)
    save_file(files[-1], folder / f"part-{len(files)}.safetensors")
    (folder / "model.safetensors.index.json").write_bytes(json_bytes({"weight_map": where}))
    config = SIZES["3b"]
    (folder / "config.json").write_bytes(json_bytes(write_config(config, "bfloat16")))
    marks = ("vision_start", "vision_end", "image_pad", "video_pad")
    _tokenizer({f"<|{mark}|>": getattr(config.special, mark) for mark in marks}).save_pretrained(folder)


def _tokenizer(marks: dict[str, int]):
    """One that knows the marks under their published ids, and words for all ids below."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {str(number): number for number in range(max(marks.values()) + 1)}
    named = {number: mark for mark, number in marks.items()}
    vocabulary = {named.get(number, word): number for word, number in words.items()}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="0")))


def held() -> int:
    """Bytes of the process's own memory; pages of files that are being read are the system's to take back."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


@contextmanager
def watched():
    """Yields a function that gives the most bytes held since then, above what was held before."""
    before, peak, done = held(), [held()], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], held())
            time.sleep(0.005)

    threading.Thread(target=watch, daemon=True).start()
    yield lambda: peak[0] - before
    done.set()


def convert(folder: Path) -> None:
    from m2io_jax.models.conversion import import_folder
    from m2io_jax.models.huggingface import read_config

    config = read_config(folder)
    with watched() as most:
        copied = import_folder(folder, folder / "imported")
        above = most()
    same = read_config(copied) == config
    print(json.dumps({"above": above, "same": same, "bytes": sum(f.stat().st_size for f in copied.iterdir())}))
    shutil.rmtree(copied)


def load(folder: Path, devices: int, dtype: str) -> None:
    import jax

    from m2io_jax.config import MeshConfig
    from m2io_jax.models.huggingface import read_config
    from m2io_jax.models.weights import load_weights
    from m2io_jax.parallel.mesh import make_mesh

    split = MeshConfig(data=1, fsdp=2, tensor=devices // 2) if devices > 1 else MeshConfig(data=1)
    mesh = make_mesh(split, jax.devices()[:devices])
    config = read_config(folder)
    jax.block_until_ready(jax.numpy.zeros(3))
    with watched() as most:
        began = time.perf_counter()
        params = jax.block_until_ready(load_weights(folder, config, mesh, dtype))
        seconds = time.perf_counter() - began
        placed = sum(shard.data.nbytes for leaf in jax.tree.leaves(params) for shard in leaf.addressable_shards)
        report = {"arrays": placed, "above": most() - placed, "seconds": seconds}
    if devices == 1:
        report |= forward(params, config)
    print(json.dumps(report))


def forward(params, config) -> dict:
    """The next token's log-probabilities after a prompt with a picture, computed in bfloat16."""
    from dataclasses import replace

    import jax
    from flax import nnx

    from m2io_jax.config import BatchConfig
    from m2io_jax.episodes.batching import PromptEncoder, stack_prompts
    from m2io_jax.models.inputs import Completions
    from m2io_jax.models.policy import structure_of
    from m2io_jax.models.preprocessing import preprocess
    from m2io_jax.models.sizes import Computation

    batch, special = BatchConfig(prompt_length=32, pictures=1, patches=48, max_pixels=10_000), config.special
    pixels = np.random.default_rng(1).integers(0, 256, (84, 112, 3), np.uint8)
    grid = preprocess(pixels, config.vision, min_pixels=3136, max_pixels=10_000)
    pads = [special.image_pad] * (grid.height * grid.width // 4)
    tokens = np.array([100, 200, special.vision_start, *pads, special.vision_end, 300], np.int32)
    prompts = stack_prompts([PromptEncoder(config, None, batch).pad(tokens, [grid], 0)])
    completions = Completions(np.full((1, 2, 2), 400, np.int32), np.ones((1, 2, 2), bool))
    structure = structure_of(replace(config, computation=Computation(dtype="bfloat16")))

    def run(params, prompts, completions):
        return nnx.merge(structure, params).completion_log_probs(prompts, completions)

    log_probs, entropy = jax.jit(run)(params, prompts, completions)
    return {"log_probs": np.ravel(log_probs).tolist(), "entropy": np.ravel(entropy).tolist()}


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    verb, folder, *rest = sys.argv[1:]
    if verb == "load":
        os.environ["JAX_NUM_CPU_DEVICES"] = rest[0]
        load(Path(folder), int(rest[0]), rest[1])
    elif verb == "import":
        convert(Path(folder))
    else:
        write(Path(folder))
