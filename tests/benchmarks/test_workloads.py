"""The workloads are those that speed is compared on, and run."""

import json

import numpy as np
import pytest
import yaml

from benchmarks.workloads import FILE, names, workload


def test_prompts_are_as_stated():
    of = workload("short")
    row, special = of.rows[0].prompt, of.policy.config.special
    assert len(of.rows) == 4 and row.tokens.shape == (192,) and row.mask.all()
    assert [(row.tokens == token).sum() for token in (special.vision_start, special.image_pad)] == [4, 64]
    text = row.tokens[(row.tokens < special.image_pad)]
    assert len(text) == 192 - 4 * 18 and text.min() >= 100 and text.max() < 1900
    assert row.patches.shape == (4, 64, 1176)
    assert not np.array_equal(of.rows[0].prompt.tokens, of.rows[1].prompt.tokens)


def test_the_workloads_are_the_shared_ones(shared):
    file = shared / "bench" / "workload.json"
    if not file.is_file():
        pytest.skip("the shared workloads are not here")
    shared, ours = json.loads(file.read_text()), yaml.safe_load(FILE.read_text())
    common = shared["common"]
    assert set(names()) == set(shared["workloads"])
    for name, stated in shared["workloads"].items():
        of = workload(name)
        batch, run, model = of.config.batch, of.config, shared["models"][stated["model"]]
        assert (batch.prompts, batch.prompt_length) == (stated["prompts_per_step"], stated["prompt_tokens"])
        assert len(of.rows[0].prompt.windows) == max(1, stated["pictures_per_prompt"])
        assert run.rollout.group_size == stated.get("group_size", common["group_size"])
        assert batch.completion_length == common["max_new_tokens"]
        assert (run.grpo.kl_beta, run.grpo.clip_epsilon) == (common["kl_beta"], common["clip_eps"])
        for tower, config in (("text", of.policy.config.text), ("vision", of.policy.config.vision)):
            for key, value in model[tower].items():
                found = getattr(config, key, value)
                assert (list(found) if isinstance(found, tuple) else found) == value or key == "max_position_embeddings"
    assert ours["text_ids"] == shared["text_id_range"]
    assert ours["run"]["optimizer"]["learning_rate"] == common["optimizer"]["lr"]
