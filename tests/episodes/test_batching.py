"""Prompts to padded rows: what a row holds, token by token, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from episode_fakes import png

from m2io_jax.config import BatchConfig
from m2io_jax.episodes.batching import PromptEncoder, stack_completions, stack_prompts
from m2io_jax.episodes.episode import Candidate, Episode, Placement, QuestionImage
from m2io_jax.episodes.prompt import Picture, Prompt, Shortened
from m2io_jax.errors import RowError, UserError
from m2io_jax.models.policy import BASE
from m2io_jax.models.preprocessing import preprocess
from m2io_jax.models.sizes import SIZES
from m2io_jax.models.tokenizer import SPECIAL, TextCodec, load_tokenizer, train_tokenizer
from m2io_jax.tasks import TASKS, find_task

TINY = SIZES["tiny"]
PAD, START, END, LOOK, LOOKED, IMAGE, VIDEO = range(7)  # ids of SPECIAL
BATCH = BatchConfig(
    prompt_length=64, completion_length=8, pictures=2, patches=24, max_pixels=4704, max_sentence_tokens=5
)
# 56 x 84 pixels: 4 x 6 patches, 6 tokens. 56 x 56: 16 patches, 4 tokens.
WIDE, SQUARE = Candidate("w", png(77, (84, 56))), Candidate("s", png(5, (56, 56)))


@pytest.fixture(scope="module")
def codec():
    return TextCodec(train_tokenizer(["the pictures of the answer"] * 3, 300))


@pytest.fixture
def encoder(codec):
    return PromptEncoder(TINY, codec, BATCH)


def prompt(*user):
    return Prompt("Be brief.", user)


def refused(encoder, *arguments, **options):
    with pytest.raises(RowError) as caught:
        encoder.row(*arguments, **options, seed=0)
    return caught.value.reason


def test_a_row_token_by_token(encoder, codec):
    row = encoder.row(prompt("A ", Picture(1), "\nB ", Picture(0), "?"), [WIDE, SQUARE], seed=7)
    text = codec.encode
    expected = [START, *text("system\n"), *text("Be brief."), END, *text("\n"), START, *text("user\n")]
    expected += [*text("A "), LOOK, *[IMAGE] * 4, LOOKED, *text("\nB "), LOOK, *[IMAGE] * 6, LOOKED, *text("?")]
    expected += [END, *text("\n"), START, *text("assistant\n")]
    length = len(expected)
    np.testing.assert_array_equal(row.tokens[:length], expected)
    assert (row.tokens[length:] == PAD).all() and length < 64
    np.testing.assert_array_equal(row.mask, np.arange(64) < length)
    # the second picture's embeddings start where the padded first one's end: 24 patches, 6 tokens
    np.testing.assert_array_equal(row.media_index[row.tokens == IMAGE], [0, 1, 2, 3, 6, 7, 8, 9, 10, 11])
    assert (row.media_index[row.tokens != IMAGE] == -1).all()
    assert row.seeds == 7
    # a picture of 4 tokens advances by 2, one of 2 x 3 by 3
    assert row.next_position == length - 10 + 2 + 3
    assert (row.positions[:, length:] == 0).all()


def test_images_inside_a_question_are_tokens_where_they_stand(codec):
    places = (QuestionImage(0, 1), QuestionImage(4, 0), QuestionImage(4, 1))
    episode = Episode("e", " or ?", (), (WIDE, SQUARE), (), (), answer="3", question_images=places)
    encoder = PromptEncoder(TINY, codec, BATCH.model_copy(update={"pictures": 3, "prompt_length": 200}))
    row = encoder.row(find_task("geometry").prompt(episode), episode.candidates, seed=0)
    text, looks = codec.encode, lambda count: [LOOK, *[IMAGE] * count, LOOKED]
    said = [START, *text("user\n"), *looks(4), *text(" or "), *looks(6), *looks(4), *text("?"), END]
    tokens = row.tokens[row.mask].tolist()
    start = tokens.index(START, 1)
    assert tokens[start : start + len(said)] == said
    # the third image is the first one again, in a row of patches of its own
    np.testing.assert_array_equal(row.patches[2], row.patches[0])
    np.testing.assert_array_equal(row.media_index[row.tokens == IMAGE], [*range(4), *range(6, 12), *range(12, 16)])


def test_the_chat_template_renders_as_the_published_one():
    user = [
        {"type": "image"},
        {"type": "text", "text": "One.\n"},
        {"type": "image", "image": "b.png"},
        {"type": "text", "text": "Which?"},
    ]
    messages = [{"role": "system", "content": "Look."}, {"role": "user", "content": user}]
    answered = [*messages, {"role": "assistant", "content": "This."}]
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    asked = f"<|im_start|>system\nLook.<|im_end|>\n<|im_start|>user\n{picture}One.\n{picture}Which?<|im_end|>\n"
    render = load_tokenizer(BASE).apply_chat_template
    assert render(messages, tokenize=False, add_generation_prompt=True) == asked + "<|im_start|>assistant\n"
    assert render(answered, tokenize=False) == asked + "<|im_start|>assistant\nThis.<|im_end|>\n"


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_a_row_is_what_the_chat_template_renders(name, explain):
    """As a server of the exported model has it: one text by the tokenizer's template, then cut into tokens."""
    tokenizer = load_tokenizer(BASE)
    episode = Episode(
        id="e",
        question="How do I make grand tomato stew?",
        sentences=("Slice two red tomatoes.", "Put them into the pan.", "Serve while hot."),
        candidates=(replace(WIDE, content="two red tomatoes"), replace(SQUARE, caption="a pan", content="one egg")),
        gold=(Placement(1, 0),),
        labels=(Placement(1, 0),),
        document="d",
        group="g",
        answer="2",
    )
    prompt = find_task(name).prompt(episode)
    batch = BatchConfig(
        prompt_length=1000, pictures=2, patches=24, max_pixels=4704, max_sentence_tokens=200, explain=explain
    )
    row = PromptEncoder(TINY, TextCodec(tokenizer), batch).row(prompt, episode.candidates, seed=0)

    parts = [
        {"type": "image"} if isinstance(part, Picture) else {"type": "text", "text": getattr(part, "text", part)}
        for part in prompt.user
    ]
    system = prompt.system + "\n\n" + prompt.manual if explain and prompt.manual else prompt.system
    messages = [{"role": "system", "content": system}, {"role": "user", "content": parts}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pieces = text.split("<|image_pad|>")
    shown = [part.candidate for part in prompt.user if isinstance(part, Picture)]
    assert len(pieces) == len(shown) + 1
    text = pieces[0] + "".join(
        "<|image_pad|>" * (6, 4)[candidate] + piece for candidate, piece in zip(shown, pieces[1:], strict=True)
    )
    assert row.tokens[row.mask].tolist() == tokenizer(text, add_special_tokens=False).input_ids


def test_patches_lie_in_the_order_of_the_prompt(encoder):
    row = encoder.row(prompt(Picture(1), Picture(0)), [WIDE, SQUARE], seed=0)
    for place, (candidate, shape) in enumerate(((SQUARE, (56, 56, 3)), (WIDE, (56, 84, 3)))):
        colour = 5 if candidate is SQUARE else 77
        pixels = np.broadcast_to(np.array([colour, 0, 0], np.uint8), shape)
        expected = preprocess(pixels, TINY.vision, min_pixels=3136, max_pixels=4704).patches
        np.testing.assert_allclose(row.patches[place, : len(expected)], expected, atol=1e-6)
        assert (row.patches[place, len(expected) :] == 0).all()
        np.testing.assert_array_equal(row.windows[place] >= 0, np.arange(24) < len(expected))


def test_a_prompt_without_pictures_has_the_same_shapes(encoder):
    row = encoder.row(prompt("only words"), [WIDE], seed=0)
    assert (row.media_index == -1).all() and (row.patches == 0).all() and (row.windows == -1).all()
    batch = stack_prompts([row, encoder.row(prompt(Picture(0)), [WIDE], seed=1)])
    assert batch.rows == 2 and batch.patches.shape == (2, 2, 24, TINY.vision.patch_features)
    np.testing.assert_array_equal(batch.seeds, [0, 1])


def test_special_tokens_of_a_completion_are_in_its_text_but_for_the_stop_at_its_end(codec):
    ids, (pad, start) = codec.encode("the pictures"), (codec.special(name) for name in SPECIAL[:2])
    for stop in (END, pad):
        assert codec.decode([*ids, stop]) == "the pictures"
    assert codec.decode([start, *ids, END, END]) == "<|im_start|>the pictures<|im_end|>"
    assert codec.decode([]) == ""


def test_text_never_becomes_a_special_token(encoder, codec):
    said = "".join(SPECIAL)
    plain = encoder.row(Prompt("", ("x",)), [], seed=0)
    ids = codec.encode(said)
    assert min(ids) >= len(SPECIAL)
    assert codec.tokenizer.decode(ids) == said
    assert codec.decode([*ids, END]) == said
    completion = encoder.completion("<|im")
    assert completion[-1] == END and min(completion[:-1]) >= len(SPECIAL)
    big = PromptEncoder(TINY, codec, BATCH.model_copy(update={"prompt_length": 512, "max_sentence_tokens": 99}))
    hostile = big.row(Prompt(said, (said, Shortened(said))), [], seed=0)
    for token in range(len(SPECIAL)):
        real = hostile.tokens[hostile.mask]
        assert np.sum(real == token) == np.sum(plain.tokens[plain.mask] == token)
    assert (hostile.media_index == -1).all()


def test_only_what_may_be_shortened_is(encoder, codec):
    long = "zq" * 9
    assert len(codec.encode(long)) == 18
    cut = encoder.row(prompt(Shortened(long), "|", long), [], seed=0)
    kept = [*codec.encode(long)[:5], *codec.encode("|"), *codec.encode(long), END]
    real = cut.tokens[cut.mask].tolist()
    start = len(real) - len([END, *codec.encode("\n"), START, *codec.encode("assistant\n")])
    assert real[start - len(kept) + 1 : start + 1] == kept


def test_what_does_not_fit_is_refused_with_its_reason(encoder):
    words = "zq" * 40
    assert refused(encoder, prompt(words), []) == "a prompt longer than batch.prompt_length"
    three = prompt(Picture(0), Picture(0), Picture(0))
    assert refused(encoder, three, [SQUARE]) == "more pictures than batch.pictures"
    with pytest.raises(RowError, match=r"a completion longer than batch\.completion_length"):
        encoder.completion("zqzqzqzq")
    assert len(encoder.completion("zqzqzqz")) == 8  # the stop token is the eighth
    # no smaller than one unit high: 1 x 14 units are 56 patches
    assert refused(encoder, prompt(Picture(0)), [Candidate("n", png(0, (2000, 20)))]) == (
        "a picture of more patches than batch.patches"
    )


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "a picture that is broken"),
        (png(3, (40, 40))[:60], "a picture that is broken"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a picture that is unsupported"),
        (png(3, (402, 2)), "a picture that is too narrow"),
    ],
)
def test_a_picture_that_cannot_be_read_is_refused_with_its_reason(encoder, data, reason):
    assert refused(encoder, prompt(Picture(0)), [Candidate("bad", data)]) == reason
    encoder.row(prompt("text"), [Candidate("bad", data)], seed=0)  # one that is not shown does not matter


def test_patches_that_cannot_be_merged_are_refused(codec):
    with pytest.raises(UserError, match="18 patches") as caught:
        PromptEncoder(TINY, codec, BatchConfig(patches=18))
    assert caught.value.where == "batch.patches" and "multiple of 4" in caught.value.mend


def test_stack_completions():
    stacked = stack_completions([[[9, 8, 2], [2]], [[7, 2], []]], length=4, pad=0)
    np.testing.assert_array_equal(stacked.tokens, [[[9, 8, 2, 0], [2, 0, 0, 0]], [[7, 2, 0, 0], [0, 0, 0, 0]]])
    np.testing.assert_array_equal(stacked.mask.sum(-1), [[3, 1], [2, 0]])
    assert stacked.mask[0, 0].tolist() == [True, True, True, False]
    assert stacked.tokens.dtype == np.int32
