"""What Hugging Face's PyTorch models answer: run where torch is installed, read as committed files elsewhere.

    python tests/models/hugging_face_reference.py     writes tests/models/reference/FAMILY/ again

Two tiny models of random weights, one a family, and for each the outputs of every block, logits, position ids and the
gradient of a loss in every parameter, for prompts that cover what goes wrong: five pictures of several sizes and
extreme proportions, windows that the picture does not fill, a batch of rows with and without pictures.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "reference"
FAMILIES = ("qwen2_5_vl", "qwen2_vl")
START, END, PAD, MEDIA = 3, 4, 0, 5
FEATURES = 3 * 2 * 4 * 4  # channels, frames, a patch of 4 x 4 pixels

# Each row in reading order: text tokens and pictures as (rows of patches, columns of patches).
CASES = {
    "one picture": [[7, 8, (4, 6), 9]],
    "five pictures": [[7, (8, 8), 8, (2, 20), 9, (26, 2), (6, 10), 10, (2, 2), 11, 12]],
    "mixed": [[20, 21, 22, 23, 24], [30, (4, 4), 31], [40, (10, 6), 41, (2, 14), 42], [50]],
}
MAIN = "five pictures"
WINDOWS = (20, 36, 47)  # pixels, of which a merged patch has 8: none is a multiple


@dataclass(frozen=True)
class Case:
    """Token ids a row, and the patches of all pictures in order with their grids."""

    rows: list[np.ndarray]
    grids: list[list[tuple[int, int]]]
    patches: list[list[np.ndarray]]


def case(name: str) -> Case:
    """Its patches are drawn from the case's name, so that nobody has to store them."""
    random = np.random.default_rng(sum(name.encode()))
    rows, grids, patches = [], [], []
    for parts in CASES[name]:
        tokens, own, drawn = [], [], []
        for part in parts:
            if isinstance(part, tuple):
                own.append(part)
                drawn.append(random.normal(size=(part[0] * part[1], FEATURES)).astype(np.float32))
                tokens += [START, *[MEDIA] * (part[0] * part[1] // 4), END]
            else:
                tokens.append(part)
        rows.append(np.array(tokens, np.int64))
        grids.append(own)
        patches.append(drawn)
    return Case(rows, grids, patches)


def build(family: str):
    """A model of random weights in float32, attention written out ("eager")."""
    import torch
    import transformers

    torch.manual_seed(FAMILIES.index(family))
    text = dict(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-6, hidden_act="silu", rope_theta=1e4,
        rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]}, bos_token_id=PAD, eos_token_id=2, pad_token_id=PAD,
        image_token_id=MEDIA, video_token_id=6, vision_start_token_id=START, vision_end_token_id=END,
    )  # fmt: skip
    vision = dict(num_heads=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2)
    if family == "qwen2_5_vl":
        vision |= dict(depth=3, hidden_size=32, intermediate_size=40, out_hidden_size=32, hidden_act="silu")
        vision |= dict(fullatt_block_indexes=[1], window_size=32)
        config = transformers.Qwen2_5_VLConfig(**text, tie_word_embeddings=False, vision_config=vision)
        made = transformers.Qwen2_5_VLForConditionalGeneration
    else:
        vision |= dict(depth=2, embed_dim=32, mlp_ratio=2, hidden_size=32)
        config = transformers.Qwen2VLConfig(**text, tie_word_embeddings=True, vision_config=vision)
        made = transformers.Qwen2VLForConditionalGeneration
    config._attn_implementation = "eager"
    model = made(config).eval()
    with torch.no_grad():  # nothing stays at 0 or 1, where a wrong sign or a lost factor would not show
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


def inputs(name: str) -> dict:
    """What the PyTorch models take: rows padded on the right, all pictures in one list."""
    import torch

    chosen = case(name)
    length = max(map(len, chosen.rows))
    tokens = np.stack([np.pad(row, (0, length - len(row)), constant_values=PAD) for row in chosen.rows])
    mask = np.stack([np.arange(length) < len(row) for row in chosen.rows])
    patches = [patch for row in chosen.patches for patch in row]
    grids = [(1, *grid) for row in chosen.grids for grid in row]
    return dict(
        input_ids=torch.tensor(tokens),
        attention_mask=torch.tensor(mask.astype(np.int64)),
        mm_token_type_ids=torch.tensor((tokens == MEDIA).astype(np.int64)),
        pixel_values=torch.tensor(np.concatenate(patches)),
        image_grid_thw=torch.tensor(grids),
    )


def answers(model, name: str) -> dict[str, np.ndarray]:
    """Logits of the real tokens row by row, position ids, and for the main case every block's output and gradients."""
    import torch
    from transformers.vision_utils import get_vision_window_index

    given, found = inputs(name), {}
    hooks, watched = [], {}
    if name == MAIN:
        towers = {"vision": model.model.visual.blocks, "language": model.model.language_model.layers}
        for tower, blocks in towers.items():
            for number, block in enumerate(blocks):
                hooks.append(block.register_forward_hook(_keep(watched, f"{tower}.{number}")))
        hooks.append(model.model.visual.merger.register_forward_hook(_keep(watched, "merger")))
    output = model(**given)
    for hook in hooks:
        hook.remove()
    found |= {key: value.detach().numpy() for key, value in watched.items()}
    positions, _ = model.model.get_rope_index(
        given["input_ids"],
        mm_token_type_ids=given["mm_token_type_ids"],
        image_grid_thw=given["image_grid_thw"],
        attention_mask=given["attention_mask"],
    )
    lengths = given["attention_mask"].sum(1).tolist()
    for row, length in enumerate(lengths):
        found[f"logits.{row}"] = output.logits[row, :length].detach().numpy()
        found[f"positions.{row}"] = positions[:, row, :length].numpy().astype(np.int32)
    if name == MAIN:
        vision = model.config.vision_config
        if hasattr(vision, "window_size"):
            sizes = vision.spatial_merge_size, vision.window_size, vision.patch_size
            order, _ = get_vision_window_index(given["image_grid_thw"], *sizes)
            found["windows"] = order.numpy().astype(np.int32)
        tokens = given["input_ids"][0]
        log_probs = torch.log_softmax(output.logits[0, :-1], -1)
        loss = -log_probs.gather(1, tokens[1:, None]).mean()
        model.zero_grad()
        loss.backward()
        found["loss"] = loss.detach().numpy()
        for key, weight in model.named_parameters():
            found[f"gradient.{key}"] = weight.grad.numpy()
    return found


def window_answers() -> dict[str, np.ndarray]:
    """Logits of the main case with the committed weights, where windows are no multiple of a merged patch."""
    import torch
    import transformers

    found = {}
    for window in WINDOWS:
        config = transformers.AutoConfig.from_pretrained(FOLDER / "qwen2_5_vl")
        config.vision_config.window_size = window
        config._attn_implementation = "eager"
        made = transformers.Qwen2_5_VLForConditionalGeneration
        model = made.from_pretrained(FOLDER / "qwen2_5_vl", config=config, dtype=torch.float32).eval()
        with torch.no_grad():
            found[f"logits.{window}"] = model(**inputs(MAIN)).logits[0].numpy()
    return found


def _keep(into: dict, name: str):
    def hook(_module, _inputs, output):
        into[name] = output[0] if isinstance(output, tuple) else output

    return hook


def write() -> None:
    import torch
    import transformers

    for family in FAMILIES:
        folder, model = FOLDER / family, build(family)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        everything = {f"{name}/{key}": value for name in CASES for key, value in answers(model, name).items()}
        np.savez_compressed(folder / "answers.npz", **everything)
        versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        versions["python"] = sys.version.split()[0]
        (folder / "made_with.json").write_text(json.dumps(versions, indent=1) + "\n")
    np.savez_compressed(FOLDER / "qwen2_5_vl" / "windows.npz", **window_answers())


if __name__ == "__main__":
    write()
