import dataclasses
import time

import numpy as np
import pytest
from episode_fakes import FakeCorpus, WordRetriever, kitchen, name_of, png

from m2io_jax.corpus.documents import AnswerPicture, Document, PictureBlock, TextBlock
from m2io_jax.corpus.pictures import inspect
from m2io_jax.episodes.building import SPLITS, BuildReport, EpisodeConfig, build_episodes, split_groups, split_of
from m2io_jax.episodes.candidates import context_around
from m2io_jax.episodes.episode import Placement
from m2io_jax.episodes.sections import Draft, ask, section_drafts, window
from m2io_jax.errors import UserError


@pytest.fixture(scope="module")
def corpus():
    return kitchen()


@pytest.fixture(scope="module")
def built(corpus):
    report = BuildReport()
    config = EpisodeConfig(train=0.6, validation=0.1)
    return list(build_episodes(corpus, WordRetriever(corpus), config, report=report)), report, config


def section_corpus(*blocks, others=0):
    """One document of these blocks, in which a number stands for a picture, and `others` with three pictures each."""
    files, documents = {}, []
    for extra in range(others + 1):
        made = []
        for block in blocks if extra == 0 else ("Something.", 100 * extra, 100 * extra + 1, 100 * extra + 2):
            if isinstance(block, int):
                data = png(block)
                files[name_of(data)] = data
                block = PictureBlock(name_of(data), 1, caption=str(block))
            elif isinstance(block, str):
                block = TextBlock(block, 1)
            made.append(block)
        documents.append(Document(f"d{extra}", f"Doc {extra}", "", f"g{extra}", tuple(made)))
    return FakeCorpus(tuple(documents), (), files)


def test_every_question_becomes_an_episode_with_its_own_gold(corpus, built):
    episodes, report, config = built
    questions = {question.id: question for question in corpus.questions}
    assert sorted(episode.id for episode in episodes) == sorted(questions)
    for episode in episodes:
        gold = tuple(AnswerPicture(episode.candidates[p.picture].picture, p.slot) for p in episode.gold)
        assert gold == questions[episode.id].pictures
        assert episode.labels == episode.gold and episode.sentences == questions[episode.id].sentences
        assert all(corpus.files[candidate.picture] == candidate.data for candidate in episode.candidates)
    assert sum(report.episodes.values()) == 80 and sum(report.without_gold.values()) == 40 and not report.dropped


def test_numbers_of_candidates_cover_the_range_and_places_are_shuffled(built):
    episodes, report, config = built
    numbers = {len(episode.candidates) for episode in episodes}
    assert numbers == {4, 5, 6, 7, 8}
    assert {episode.gold[0].picture for episode in episodes if episode.gold} >= {0, 1, 2, 3, 4}


def test_no_wrong_picture_is_right_and_none_repeats(corpus, built):
    contents = {question.id: set(question.contents) - {""} for question in corpus.questions}
    for episode in built[0]:
        gold = {placement.picture for placement in episode.gold}
        shown = [candidate.content for candidate in episode.candidates]
        assert len(set(shown)) == len(shown)
        assert all(shown[i] not in contents[episode.id] for i in range(len(shown)) if i not in gold)


def test_wrong_pictures_are_mostly_near_misses(corpus, built):
    near = total = 0
    for episode in built[0]:
        gold = {placement.picture for placement in episode.gold}
        words = {word for i in gold for word in episode.candidates[i].content.split()}
        for i, candidate in enumerate(episode.candidates):
            if gold and i not in gold:
                total += 1
                near += bool(words & set(candidate.content.split()))
    assert total > 100 and near / total > 0.6


def test_a_split_shows_no_picture_of_another(corpus, built):
    episodes, _, config = built
    groups = {document.id: document.group for document in corpus.documents}
    seen = {split: set() for split in SPLITS}
    for episode in episodes:
        split = split_of(episode.group, config)
        assert {split_of(groups[candidate.document], config) for candidate in episode.candidates} == {split}
        seen[split] |= {candidate.picture for candidate in episode.candidates}
    assert all(seen.values())
    assert not (seen["train"] & seen["test"] or seen["train"] & seen["validation"] or seen["validation"] & seen["test"])


def test_a_picture_used_in_two_splits_is_no_ones_distractor(corpus):
    shared = next(block for block in corpus.documents[0].blocks if isinstance(block, PictureBlock))
    documents = [
        dataclasses.replace(d, blocks=(*d.blocks, dataclasses.replace(shared, content=""))) for d in corpus.documents
    ]
    common = FakeCorpus(tuple(documents), corpus.questions, corpus.files)
    for episode in build_episodes(common, WordRetriever(common), EpisodeConfig(train=0.6)):
        gold = {placement.picture for placement in episode.gold}
        assert all(c.picture != shared.picture for i, c in enumerate(episode.candidates) if i not in gold)


def test_built_again_equal_and_a_row_does_not_depend_on_the_other_rows(corpus, built):
    episodes, _, config = built
    again = list(build_episodes(corpus, WordRetriever(corpus), config, splits=("test",)))
    assert again and again == [episode for episode in episodes if split_of(episode.group, config) == "test"]
    fewer = FakeCorpus(corpus.documents, corpus.questions[::2], corpus.files)
    alike = {episode.id: episode for episode in build_episodes(fewer, WordRetriever(corpus), config)}
    assert all(alike[episode.id] == episode for episode in episodes if episode.id in alike)


def test_splits_have_about_their_shares_and_do_not_move_when_groups_are_added():
    config = EpisodeConfig(seed=3)
    splits = [split_of(f"g{i}", config) for i in range(4000)]
    assert abs(splits.count("train") / 4000 - 0.8) < 0.02 and abs(splits.count("validation") / 4000 - 0.05) < 0.011
    assert {split_of(f"g{i}", EpisodeConfig(train=0.9, validation=0.1)) for i in range(999)} == {"train", "validation"}


def test_a_corpus_of_few_groups_has_something_to_train_on():
    for seed in range(30):
        config = EpisodeConfig(seed=seed, train=0.3)
        assert split_groups(["only"], config) == {"only": "train"}
        several = split_groups(["a", "b", "c"], config)
        assert "train" in several.values()
        assert sum(several[group] != split_of(group, config) for group in several) <= 1


def test_imperfect_labels_leave_gold_alone(corpus, built):
    config = dataclasses.replace(built[2], drop_labels=0.5, move_labels=0.2)
    changed = list(build_episodes(corpus, WordRetriever(corpus), config))
    assert [episode.gold for episode in changed] == [episode.gold for episode in built[0]]
    assert any(episode.labels != episode.gold for episode in changed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sentences": ()}, "no sentence"),
        ({"pictures": (AnswerPicture("0" * 64, 1),)}, "does not stand in the document"),
        ({"pictures": "slot"}, "outside the answer"),
        ({"document": "nowhere"}, "not in the corpus"),
    ],
)
def test_bad_questions_are_counted_with_their_reason(corpus, change, reason):
    question = corpus.questions[0]
    if change.get("pictures") == "slot":
        change = {"pictures": (dataclasses.replace(question.pictures[0], slot=9),)}
    bad = FakeCorpus(corpus.documents, (dataclasses.replace(question, **change), corpus.questions[2]), corpus.files)
    report = BuildReport()
    episodes = list(build_episodes(bad, None, EpisodeConfig(), report=report))
    assert [episode.id for episode in episodes] == [corpus.questions[2].id]
    assert report.rows[0][0] == question.id and reason in report.rows[0][1] and sum(report.dropped.values()) == 1


def test_a_gold_picture_that_cannot_be_read_drops_the_row_and_others_are_left_out(corpus):
    lost = corpus.questions[0].pictures[0].picture
    files = {name: data for name, data in corpus.files.items() if name != lost}
    files[corpus.questions[2].pictures[0].picture] = b"not a picture"
    report = BuildReport()
    damaged = FakeCorpus(corpus.documents, corpus.questions, files)
    episodes = list(build_episodes(damaged, WordRetriever(corpus), EpisodeConfig(), report=report))
    assert {id for id, _ in report.rows} == {corpus.questions[0].id, corpus.questions[2].id}
    assert set(report.dropped) == {"a gold picture cannot be read"} and len(report.unreadable) == 2
    assert all(candidate.picture != lost for episode in episodes for candidate in episode.candidates)


def test_sections_lose_their_pictures_and_remember_where_they_stood():
    heading = TextBlock("Connect the sensor", 1, "heading", 2)
    item = TextBlock("a. b", 1, "item")
    corpus = section_corpus("Intro. More.", heading, 1, "First. Second.", 2, 1, item, 3, others=4)
    config = EpisodeConfig(train=1, validation=0, empty=0)
    episode = next(build_episodes(corpus, None, config))
    assert episode.question == "How do I connect the sensor, in Doc 0?"
    assert episode.sentences == ("First.", "Second.", "a. b")
    captions = [(p.slot, episode.candidates[p.picture].caption) for p in episode.gold]
    # Picture 1 stands twice and counts where it stands first.
    assert captions == [(0, "1"), (2, "2"), (3, "3")]
    assert len(episode.candidates) >= 4 and episode.document == "d0" and episode.group == "g0"


def test_share_of_sections_without_pictures():
    blocks = []
    for section in range(40):
        blocks += [TextBlock(f"S{section}", 1, "heading", 2), "Text. More.", *([section + 1] if section % 2 else [])]
    corpus = section_corpus(*blocks)
    report = BuildReport()
    list(build_episodes(corpus, None, EpisodeConfig(train=1, validation=0, empty=0.2), report=report))
    assert report.episodes["train"] == 25 and report.without_gold["train"] == 5


def test_too_many_gold_pictures_and_pictures_without_text_are_counted():
    report = BuildReport()
    corpus = section_corpus("Some text.", *range(1, 10), TextBlock("H", 1, "heading", 1), 20)
    list(build_episodes(corpus, None, EpisodeConfig(train=1, validation=0), report=report))
    assert report.dropped == {"more than 8 gold pictures": 1, "the section has pictures and no text": 1}


def test_a_group_with_images_is_trained_on():
    for seed in range(20):
        config = EpisodeConfig(seed=seed)
        splits = split_groups(["lesson", "licence"], config, frozenset(["lesson"]))
        assert splits == {"lesson": "train", "licence": split_of("licence", config)}
        assert "train" in split_groups(["a", "b"], config).values()


def test_the_window_holds_most_images_and_has_them_most_central():
    random = np.random.default_rng(0)
    for _ in range(300):
        length, sentences = int(random.integers(1, 7)), int(random.integers(1, 20))
        slots = [int(slot) for slot in random.integers(0, sentences + 1, int(random.integers(0, 9)))]

        def merit(first, slots=slots, length=length):
            inside = [slot for slot in slots if (first < slot or first == 0) and slot <= first + length]
            eccentric = abs(sum(inside) / len(inside) - (first + length / 2)) if inside else float("inf")
            return len(inside), -eccentric, -first

        expected = max(range(sentences - length + 1), key=merit) if slots and sentences > length else 0
        assert window(sentences, slots, length) == expected


def test_long_illustrated_sections_take_no_time():
    began = time.perf_counter()
    assert window(20_000, range(20_000), 12) == 0
    assert time.perf_counter() - began < 2  # not quadratic in the images


def test_long_sections_are_cut_around_their_pictures():
    assert window(5, [2], 12) == 0
    assert window(20, [15], 4) == 13  # sentences 13 to 16 (from 0): slot 15 is the middle of the window
    assert window(20, [0, 1, 19], 4) == 0
    blocks = [f"S{i}." if not isinstance(i, str) else 7 for i in [*range(10), "picture", *range(10, 20)]]
    corpus = section_corpus(1, *blocks, others=3)
    draft = next(section_drafts(corpus.documents[0], 4))
    assert isinstance(draft, Draft) and len(draft.sentences) == 4
    (position, slot), *rest = draft.gold
    assert not rest and draft.hidden == {11} or draft.hidden == {0}
    assert draft.sentences[slot - 1] == "S9."
    hidden = {corpus.documents[0].blocks[i].picture for i in draft.hidden}
    episode = next(build_episodes(corpus, None, EpisodeConfig(train=1, validation=0, max_sentences=4)))
    assert not hidden & {candidate.picture for candidate in episode.candidates}


def test_large_pictures_are_scaled_down():
    corpus = section_corpus("Some text.", 1)
    name = next(iter(corpus.files))
    corpus.files[name] = png(1, size=(400, 100))
    episode = next(build_episodes(corpus, None, EpisodeConfig(train=1, validation=0, max_pixels=10_000)))
    info = inspect(episode.candidates[0].data)
    assert (info.width, info.height) == (200, 50) and episode.candidates[0].picture == name
    assert episode.gold == (Placement(slot=1, picture=0),)


def test_context_is_the_text_next_to_the_picture():
    corpus = section_corpus("far " * 100 + "near before.", 1, "near after. " + "far " * 100)
    context = context_around(corpus.documents[0], 1)
    assert "near before. […] near after." in context and 300 < len(context) <= 2 * 200 + 5


@pytest.mark.parametrize(
    ("title", "heading", "question"),
    [
        ("Soil", "", "What is there to know about Soil?"),
        ("Soil", "What is soil?", "Soil: What is soil?"),
        ("Soil", "Measure moisture", "How do I measure moisture, in Soil?"),
        ("Soil", "Task - connect the hardware", "How do I connect the hardware, in Soil?"),
        ("Soil", "2.1 Sensors", "What does Soil say about Sensors?"),
        ("Soil", "3D sensors", "What does Soil say about 3D sensors?"),
        ("Soil", "10 hints", "What does Soil say about 10 hints?"),
        ("Soil", "Sensors", "What does Soil say about Sensors?"),
    ],
)
def test_questions_from_headings(title, heading, question):
    assert ask(title, heading) == question


@pytest.mark.parametrize(
    "wrong", [{"max_candidates": 3}, {"train": 1.2}, {"empty": 1.0}, {"drop_labels": 0.9, "move_labels": 0.2}]
)
def test_wrong_values_name_their_key(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)).split("_")[0]):
        EpisodeConfig(**wrong)


def test_an_empty_corpus_and_missing_questions_are_the_users_errors(corpus):
    with pytest.raises(UserError, match="no documents"):
        next(build_episodes(FakeCorpus(()), None, EpisodeConfig()))
    with pytest.raises(UserError, match="no questions"):
        next(build_episodes(FakeCorpus(corpus.documents), None, EpisodeConfig(source="questions")))
