"""Constrained decoding: whatever the model, every completion is one of the grammar, for its own prompt."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from programs import equations
from small_model import SMALL, prompt_row

from m2io_jax.episodes.batching import stack_prompts
from m2io_jax.episodes.episode import Candidate, Episode
from m2io_jax.errors import UserError
from m2io_jax.models.inserter import Inserter
from m2io_jax.models.policy import BASE
from m2io_jax.models.tokenizer import TextCodec, load_tokenizer
from m2io_jax.sampling.constraints import Constraint, compile_grammar, limits
from m2io_jax.sampling.sampler import SamplingConfig, completion_ids, sample
from m2io_jax.tasks.inserter import COMPLETION, CompletionGrammar, parse

ROWS, GROUP, LENGTH = 50, 20, 40
CODEC = TextCodec(load_tokenizer(BASE))
TOKENS = CODEC.token_bytes()
MODEL = replace(SMALL, text=replace(SMALL.text, vocab_size=len(TOKENS)))
EPISODES = [
    Episode(
        id=str(row),
        question="",
        sentences=("A.",) * (row % 7),
        candidates=tuple(Candidate(picture=str(index), data=b"") for index in range(row % 5)),
        gold=(),
        labels=(),
    )
    for row in range(ROWS)
]
LIMITS = limits([(len(episode.candidates), len(episode.sentences)) for episode in EPISODES])


def draw(grammar):
    """1,000 completions of a model with random weights, at temperature 2."""
    automaton = compile_grammar(grammar, TOKENS, SMALL.special.eos)
    structure, weights = nnx.split(Inserter(MODEL, rngs=nnx.Rngs(0)))
    prompts = stack_prompts([prompt_row(60, seed=row) for row in range(ROWS)])
    settings = SamplingConfig((2.0,) * GROUP, LENGTH)
    run = jax.jit(
        lambda weights, prompts, constraint, key: sample(
            nnx.merge(structure, weights), prompts, settings, key=key, constraint=constraint
        )
    )
    return jax.device_get(run(weights, prompts, Constraint(automaton, LIMITS), jax.random.key(0)))


def texts(drawn):
    return [[CODEC.decode(ids) for ids in group] for group in completion_ids(drawn.completions)]


@pytest.fixture(scope="module")
def drawn():
    return draw(CompletionGrammar())


def test_a_thousand_of_a_thousand_completions_of_a_random_model_parse(drawn):
    said = texts(drawn)
    assert sum(map(len, said)) == 1000
    for episode, group in zip(EPISODES, said, strict=True):
        for text in group:
            assert parse(text, episode) is not None, text
    assert len({text for group in said for text in group}) > 900


def test_completions_stop_by_the_stop_token(drawn):
    lengths = drawn.completions.mask.sum(-1)
    assert (np.take_along_axis(drawn.completions.tokens, lengths[..., None] - 1, 2) == SMALL.special.eos).all()
    assert lengths.max() == LENGTH, "the last tokens' worth of room is used"


def test_answers_name_the_prompts_pictures_and_slots_once_each():
    """From where the answer begins: before it, a random model thinks until only `none` fits."""

    class AnswerAlone(CompletionGrammar):
        start = ("line", False)

    most, named = 0, set()
    for episode, group in zip(EPISODES, texts(draw(AnswerAlone())), strict=True):
        for text in group:
            parsed = parse(f"<think>\n</think>\n<answer>\n{text}", episode)
            assert parsed is not None, text
            most = max(most, len(parsed.placements))
            named |= {placement.slot for placement in parsed.placements}
    assert most == 4 and named == set(range(7)), "all pictures of a prompt, all slots from the first to the last"


def test_log_probs_are_the_policys_own_without_the_grammar(drawn):
    structure, weights = nnx.split(Inserter(MODEL, rngs=nnx.Rngs(0)))
    prompts = stack_prompts([prompt_row(60, seed=row) for row in range(ROWS)])
    score = jax.jit(lambda w: nnx.merge(structure, w).completion_log_probs(prompts, drawn.completions, 2.0)[0])
    mask = drawn.completions.mask
    np.testing.assert_allclose(np.asarray(score(weights))[mask], drawn.log_probs[mask], atol=2e-5)


@pytest.mark.parametrize(
    "text, accepted",
    [
        ("<think>\nA x=2\n</think>\n<answer>\nA:2\nB:12\n</answer>", True),
        ("<think>\n</think>\n<answer>\nnone\n</answer>", True),
        ("<think>\n<<th</thin</think>\n<answer>\nZ:0\n</answer>", True),
        ("<think>\n<answer></think>\n<answer>\nnone\n</answer>", False),
        ("<think>\n</think>\n<answer>\n</answer>", False),
        ("<think>\n</think>\n<answer>\nnone\nA:1\n</answer>", False),
        ("<think>\n</think>\n<answer>\nA:1</answer>", False),
        ("<think>\n</think>\n<answer>\nA:01\n</answer>", False),
        ("<think>\n</think>\n<answer>\nA:100\n</answer>", False),
    ],
)
def test_the_grammar_and_the_regular_expression_agree(text, accepted):
    grammar, state = CompletionGrammar(), CompletionGrammar.start
    for byte in text.encode():
        step = grammar.step(state, byte)
        if step is None:
            break
        state = step.state
    assert (step is not None and state == grammar.end) == accepted
    assert bool(COMPLETION.fullmatch(text)) or not accepted


def test_more_labels_than_letters_are_refused():
    with pytest.raises(UserError, match="26 pictures"):
        limits([(27, 3)])


def test_nothing_leaves_the_device_while_decoding():
    structure, weights = nnx.split(nnx.eval_shape(lambda: Inserter(MODEL, rngs=nnx.Rngs(0))))
    prompts = stack_prompts([prompt_row(60, seed=row) for row in range(ROWS)])
    by = Constraint(compile_grammar(CompletionGrammar(), TOKENS, SMALL.special.eos), LIMITS)

    def run(weights, by):
        model = nnx.merge(structure, weights)
        return sample(model, prompts, SamplingConfig((1.0,), LENGTH), key=jax.random.key(0), constraint=by)

    program = jax.make_jaxpr(run)(weights, by)
    names = {equation.primitive.name for equation in equations(program.jaxpr)}
    assert "while" in names and not {name for name in names if "callback" in name or "feed" in name}
