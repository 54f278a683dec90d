"""Inserters behind one face: from an episode to placements and the words that led to them."""

from m2io_jax.config import BatchConfig, EvaluateConfig, RunConfig
from m2io_jax.evaluation.policy import Judge
from m2io_jax.evaluation.rules import Threshold, match_episodes
from m2io_jax.models.policy import Policy
from m2io_jax.retrieval.encoder import Encoder
from m2io_jax.serving.answering import Placer

# Room for a long answer with many pictures; what does not fit is refused with a reason, never cut.
ROOM = BatchConfig(prompt_length=1024, completion_length=256, pictures=12)


def model_placer(policy: Policy) -> Placer:
    """The model, decoding greedily. An invalid completion places nothing; its text is still shown as the reasoning."""
    settings = dict(batch=ROOM, evaluate=EvaluateConfig(batch_prompts=1), mesh={"data": 1})
    config = RunConfig(name="answer", objective="supervised", steps=1, **settings)
    judge = Judge(config, policy)

    def place(episode):
        said = judge.judge(policy, [episode], "looking at the pictures")["greedy"][0]
        return said.placements or (), said.reasoning or said.completion

    return place


def match_placer(encoder: Encoder, threshold: Threshold | None = None) -> Placer:
    """The matching rule: pictures whose words are like a sentence's."""
    return lambda episode: (match_episodes([episode], encoder, threshold)[0], "")
