"""Inserters behind one face: from an episode to placements and the words that led to them."""

import jax

from m2io_jax.config import BatchConfig, EvaluateConfig, MeshConfig, RunConfig
from m2io_jax.errors import UserError
from m2io_jax.evaluation.policy import Judge, NothingJudged
from m2io_jax.evaluation.rules import Threshold, match_episodes
from m2io_jax.models.policy import Policy
from m2io_jax.parallel.mesh import make_mesh
from m2io_jax.retrieval.encoder import Encoder
from m2io_jax.serving.answering import Placer
from m2io_jax.tasks import find_task
from m2io_jax.tasks.inserter import parse

# Room for a long answer with many pictures; what does not fit is refused with a reason, never cut.
ROOM = BatchConfig(prompt_length=1024, completion_length=256, pictures=12)
SEEN = ("patches", "max_pixels", "max_sentence_tokens", "explain")  # as the policy was trained


def model_placer(policy: Policy, run: RunConfig | None = None) -> Placer:
    """The model, decoding greedily and kept to the grammar: whatever it has learnt, its answer can be read.

    Args:
        run: what trained the policy; None for the base.
    """
    judge = Judge(answering(policy, run), policy, make_mesh(MeshConfig(data=1), jax.devices()[:1]))
    policy = judge.ready(policy)

    def place(episode):
        try:
            judged = judge.judge(policy, find_task("inserter"), [episode], "looking at the pictures")
        except NothingJudged as error:
            what = f"The inserter cannot be asked this: {', '.join(error.dropped)}."
            raise UserError(what, mend="ask a shorter question") from error
        completion = judged.rows["greedy"][0].completion
        said = parse(completion, episode)
        return (said.placements, said.thinking or completion) if said else ((), completion)

    return place


def answering(policy: Policy, run: RunConfig | None) -> RunConfig:
    """How an answer is made: pictures as the policy has seen them, and room for at least as many."""
    settings = dict(batch=ROOM, evaluate=EvaluateConfig(batch_prompts=1, constrained=True))
    if run is not None:
        batch = run.batch
        most = max(ROOM.pictures, batch.pictures)
        needed = most * batch.patches // policy.config.vision.merge_unit + batch.prompt_length
        seen = {name: getattr(batch, name) for name in SEEN} | {"pictures": most}
        seen["prompt_length"] = max(ROOM.prompt_length, needed)
        seen["completion_length"] = max(ROOM.completion_length, batch.completion_length)
        settings |= dict(batch=ROOM.model_copy(update=seen), computation=run.computation)
        settings["evaluate"] = settings["evaluate"].model_copy(update={"int8": run.evaluate.int8})
    return RunConfig(name="answer", objective="supervised", steps=1, **settings)


def match_placer(encoder: Encoder, threshold: Threshold) -> Placer:
    """The matching rule of a run's report: images whose words are like a sentence's, from `threshold` on."""
    return lambda episode: (match_episodes([episode], encoder, threshold)[0], "")
