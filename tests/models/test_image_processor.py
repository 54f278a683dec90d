"""The image processor's settings: read as transformers reads them; an export shows a server the images of training."""

import io
import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import yaml
from odd_folder import odd_model, processor
from PIL import Image
from transformers import AutoImageProcessor

from m2io_jax.config import BatchConfig
from m2io_jax.episodes.batching import PromptEncoder
from m2io_jax.episodes.episode import Candidate
from m2io_jax.episodes.prompt import Picture, Prompt
from m2io_jax.errors import UserError
from m2io_jax.models.companions import companions, read_folder
from m2io_jax.models.conversion import export_folder, import_folder
from m2io_jax.models.image_processor import read_image_config
from m2io_jax.models.policy import BASE, load_policy
from m2io_jax.models.sizes import CLIP, SIZES
from m2io_jax.models.tokenizer import TextCodec, load_tokenizer

TINY = SIZES["tiny"]
# Width and height: within the bounds, small, large, narrow.
IMAGES = [(56, 56), (30, 20), (640, 480), (97, 311), (900, 30), (5, 5), (28, 84), (1200, 1190), (61, 200)]
OWN = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.5, 0.2]}


def folder_with(path, *, nested=None, flat=None):
    """The base's folder with these settings of its image processor."""
    shutil.copytree(BASE, path)
    (path / "preprocessor_config.json").unlink()
    if nested is not None:
        (path / "processor_config.json").write_text(json.dumps({"image_processor": nested, "processor_class": "Q"}))
    if flat is not None:
        (path / "preprocessor_config.json").write_text(json.dumps(flat))
    return path


def run_of(source, folder, most, how):
    """A run's folder: its configuration, and a policy by one of the ways that one gets there."""
    folder.mkdir()
    if how == "import":
        import_folder(source, folder / "model")
    else:
        load_policy(str(source)).save(folder / "model")
    (folder / "config.yaml").write_text(yaml.safe_dump({"batch": {"max_pixels": most}}))
    return folder


def trained_on(model, most, image):
    """The grid and the patches that training makes of an image."""
    stored = io.BytesIO()
    image.save(stored, "PNG")
    candidate = Candidate("h", stored.getvalue(), "", "", "d", 0, "")
    batch = BatchConfig(prompt_length=2048, pictures=1, patches=6000, max_pixels=most)
    codec = TextCodec(load_tokenizer(BASE))
    row = PromptEncoder(model, codec, batch).row(Prompt("s", (Picture(0),)), [candidate], seed=0)
    real = row.windows[0] >= 0
    height, width = row.patch_positions[0][real].max(0) + 1
    return [1, int(height), int(width)], row.patches[0][real]


FORMS = {
    "version 5": dict(nested=processor(TINY)),
    "version 5, own bounds and statistics": dict(nested=processor(TINY, least=12_544, most=50_176, **OWN)),
    "version 4": dict(flat={"min_pixels": 784, "max_pixels": 99_999, "image_processor_type": "Qwen2VLImageProcessor"}),
    "version 4 with a size": dict(flat=processor(TINY, least=6_272, image_processor_type="Qwen2VLImageProcessorFast")),
    "both, which differ": dict(nested=processor(TINY, **OWN), flat=processor(TINY, least=784)),
    "not normalised": dict(nested=processor(TINY, do_normalize=False)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how, most", [("import", 6272), ("trained", 50_176), ("trained", 784)])
def test_an_export_shows_what_training_saw(form, how, most, tmp_path):
    source = folder_with(tmp_path / "source", **FORMS[form])
    run = run_of(source, tmp_path / "run", most, how)
    model = load_policy(str(run)).config
    out = export_folder(run, tmp_path / "out")
    given = json.loads((out / "preprocessor_config.json").read_text())
    assert given["max_pixels"] == most and given["min_pixels"] == min(most, model.image.min_pixels)
    for elsewhere in (out, alone(out, tmp_path / "alone", "preprocessor_config.json")):
        server = AutoImageProcessor.from_pretrained(elsewhere)
        for width, height in IMAGES:
            image = Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8))
            grid, patches = trained_on(model, most, image)
            shown = server(images=[image], return_tensors="np")
            assert shown["image_grid_thw"][0].tolist() == grid, (elsewhere.name, width, height)
            if find_spec("torch") is None:  # with torch, transformers scales by another library
                np.testing.assert_array_equal(shown["pixel_values"], patches)


def alone(out, folder, name):
    """What a version that knows one file alone reads."""
    folder.mkdir()
    for file in (name, "config.json"):
        shutil.copy(out / file, folder)
    return folder


@pytest.mark.parametrize("named", ["run", "run/model", "link"])
def test_the_bound_is_found_from_the_run_and_from_its_model(named, tmp_path):
    source = folder_with(tmp_path / "source", nested=processor(TINY))
    run_of(source, tmp_path / "run", 6272, "import")
    (tmp_path / "link").symlink_to(tmp_path / "run" / "model")
    out = export_folder(tmp_path / named, tmp_path / "out")
    assert AutoImageProcessor.from_pretrained(out).size.longest_edge == 6272
    plain = export_folder(source, tmp_path / "plain")
    assert AutoImageProcessor.from_pretrained(plain).size.longest_edge == 12_845_056


def test_what_videos_are_shown_stays_as_it_is(tmp_path):
    source = folder_with(tmp_path / "source", nested=processor(TINY))
    whole = json.loads((source / "processor_config.json").read_text())
    whole |= {"video_processor": {"size": {"longest_edge": 9}}}
    (source / "processor_config.json").write_text(json.dumps(whole))
    (source / "video_preprocessor_config.json").write_text('{"max_pixels": 5}')
    out = export_folder(run_of(source, tmp_path / "run", 6272, "import"), tmp_path / "out")
    given = json.loads((out / "processor_config.json").read_text())
    assert given["video_processor"] == {"size": {"longest_edge": 9}}
    assert given["image_processor"]["size"] == {"shortest_edge": 3136, "longest_edge": 6272}
    assert (out / "video_preprocessor_config.json").read_text() == '{"max_pixels": 5}'


def test_a_damaged_run_is_told(tmp_path):
    run = run_of(BASE, tmp_path / "run", 6272, "import")
    for text, says in (("batch: {max_pixels: -3}", "max_pixels is -3"), ("batch: [", "cannot be read")):
        (run / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=f"(?s){says}.*config.yaml"):
            export_folder(run, tmp_path / "out")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"patch_size": 16}, "patch_size is 16, but the vision tower in config.json has 14"),
        ({"temporal_patch_size": 1}, "temporal_patch_size is 1, but"),
        ({"merge_size": 4}, "merge_size is 4, but"),
        ({"resample": 2}, "resample is 2; only 3"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is .*; only 1/255"),
        ({"do_rescale": False}, "do_rescale is False; only true"),
        ({"do_resize": False}, "do_resize is False; only true"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is .* but must be three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is .* but must be three numbers"),
        ({"image_std": "clip"}, "image_std is 'clip' but"),
        ({"min_pixels": 0}, "min_pixels is 0 but must be"),
        ({"min_pixels": True}, "min_pixels is True but must be"),
        ({"size": 448}, "size is 448 but must hold"),
        ({"size": {"height": 448, "width": 448}}, "must hold shortest_edge and longest_edge"),
        ({"size": {"longest_edge": 448}}, "must hold shortest_edge and longest_edge"),
        ({"image_processor_type": "CLIPImageProcessor"}, "'CLIPImageProcessor' is not implemented"),
    ],
)
@pytest.mark.parametrize("place", ["nested", "flat"])
def test_what_training_does_not_compute_is_refused(place, change, says, tmp_path):
    source = folder_with(tmp_path / "source", **{place: processor(TINY) | change})
    with pytest.raises(UserError, match=f"(?s){says}.*processor_config.json"):
        read_folder(source)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, CLIP.min_pixels),
        ({"min_pixels": 784}, 784),
        ({"min_pixels": None, "size": {"shortest_edge": 1568, "longest_edge": 9999}}, 1568),
        ({"size": {"min_pixels": 6272, "max_pixels": 9999}}, 6272),
        ({"min_pixels": 784, "size": {"shortest_edge": 1568}}, 784),
        ({"future_setting": 3, "crop_size": None}, CLIP.min_pixels),
    ],
)
def test_the_least_pixels_are_read_where_they_stand(settings, expected, tmp_path):
    for form in (dict(nested=settings), dict(flat=settings)):
        source = folder_with(tmp_path / next(iter(form)), **form)
        assert read_image_config(companions(source), TINY.vision, "here").min_pixels == expected


def test_one_number_is_every_channels():
    files = {"preprocessor_config.json": json.dumps({"image_mean": 0.5, "image_std": 0.25}).encode()}
    found = read_image_config(files, odd_model("qwen2_vl").vision, "here")
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.skipif(find_spec("torch") is None, reason="AutoProcessor needs torch for its video processor")
def test_the_whole_processor_makes_as_many_tokens_as_training(tmp_path):
    from transformers import AutoProcessor

    source = folder_with(tmp_path / "source", nested=processor(TINY))
    whole = json.loads((source / "processor_config.json").read_text()) | {"processor_class": "Qwen2_5_VLProcessor"}
    (source / "processor_config.json").write_text(json.dumps(whole))
    out = export_folder(run_of(source, tmp_path / "run", 6272, "trained"), tmp_path / "out")
    server, model = AutoProcessor.from_pretrained(out), load_policy(str(tmp_path / "run")).config
    for width, height in IMAGES:
        image = Image.new("RGB", (width, height), "red")
        grid, _ = trained_on(model, 6272, image)
        shown = server(images=[image], text=["<|vision_start|><|image_pad|><|vision_end|>"], return_tensors="np")
        assert shown["image_grid_thw"][0].tolist() == grid
        assert (shown["input_ids"] == model.special.image_pad).sum() == grid[1] * grid[2] // 4
