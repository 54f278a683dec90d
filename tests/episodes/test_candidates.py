"""Wrong pictures are chosen as by looking at every picture of the document, but without doing so."""

import sys
from itertools import zip_longest

import numpy as np
import pytest
from episode_fakes import FakeCorpus, WordRetriever, name_of, png

from m2io_jax.corpus.documents import AnswerPicture, Document, PictureBlock, Question, TextBlock
from m2io_jax.episodes import candidates
from m2io_jax.episodes.building import EpisodeConfig, build_episodes
from m2io_jax.episodes.candidates import Pool, choose_distractors, picture_places
from m2io_jax.episodes.sections import Draft, window

WORDS = "red green blue egg pan pot cut fry boil slice".split()


def chosen_by_looking_at_all(draft, wanted, pool, found, random):
    """The definition: all pictures of the document and of what was found, in turn; likeness of each to the contents."""
    turns = [found[i] for i in random.permutation(len(found))]
    own = [p for p in picture_places(draft.document) if (p.document, p.position) in pool.places]
    in_turn = [place for row in zip_longest(own, *turns) for place in row if place]
    gold = [draft.document.blocks[position] for position, _ in draft.gold]
    hidden = [draft.document.blocks[position] for position in draft.hidden]
    pictures = {block.picture for block in (*gold, *hidden)}
    shown = {block.content for block in gold} | set(draft.contents) - {""}
    near = sorted(in_turn, key=lambda place: -candidates._likeness(place.block.content, draft.contents))
    chosen = []
    candidates._take(chosen, near, round(wanted * candidates.NEAR_MISSES), pictures, shown)
    candidates._take(chosen, in_turn, wanted, pictures, shown)
    candidates._take(chosen, pool.any(random, tries=8 * wanted), wanted, pictures, shown)
    return chosen


def document_of(id, random, contents):
    blocks = []
    for _ in range(int(random.integers(1, 30))):
        words = " ".join(random.choice(WORDS, int(random.integers(0, 4)))) if contents else ""
        blocks.append(PictureBlock(f"p{random.integers(25)}", len(blocks), content=words))
        if random.random() < 0.3:
            blocks.append(TextBlock("text", len(blocks)))
    return Document(id, id, id, id, tuple(blocks))


@pytest.mark.parametrize("contents", [False, True])
@pytest.mark.parametrize("seed", range(150))
def test_what_is_chosen_is_what_looking_at_all_would_choose(seed, contents):
    random = np.random.default_rng(seed)
    documents = [document_of(f"d{i}", random, contents) for i in range(3)]
    pool = Pool(documents, frozenset({"p3", "p4"}))
    places = list(pool.places.values())
    draws = random.integers(len(places), size=(int(random.integers(4)), 12)) if places else []
    found = [[places[i] for i in row[: int(random.integers(13))]] for row in draws]
    document = documents[0]
    own = [i for i, block in enumerate(document.blocks) if isinstance(block, PictureBlock)]
    gold = tuple((int(i), 0) for i in random.choice(own, min(2, len(own)), replace=False))
    hidden = frozenset(int(i) for i in random.choice(own, 1))
    said = tuple(" ".join(random.choice(WORDS, 2)) for _ in range(2)) if contents else ()
    draft, wanted = Draft("x", "q", ("s",), gold, document, said, hidden), int(random.integers(9))
    expected = chosen_by_looking_at_all(draft, wanted, pool, found, np.random.default_rng(1)) if wanted else []
    assert choose_distractors(draft, wanted, pool=pool, found=found, random=np.random.default_rng(1)) == expected


def illustrated(sections, pictures):
    """One document of so many sections, each with a heading, a sentence and one of so many pictures in turn."""
    files = {name_of(data): data for data in (png(i + 1) for i in range(pictures))}
    names, blocks, questions = list(files), [], []
    for i in range(sections):
        name, text = names[i % pictures], f"Now turn wheel number {i}."
        blocks += [TextBlock(f"Part {i}", i, "heading", 2), TextBlock(text, i), PictureBlock(name, i)]
        questions.append(Question(f"q{i}", "one", f"How is wheel {i} turned?", (text,), (AnswerPicture(name, 1),)))
    document = Document("one", "One", "one.md", group="one", blocks=tuple(blocks))
    return FakeCorpus((document,), tuple(questions), files)


def steps_of(work) -> int:
    """Calls of functions, Python's and built-in ones, and resumptions of generators."""
    count = 0

    def note(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("source", ["sections", "questions"])
@pytest.mark.parametrize("all_alike", [False, True])
def test_twice_the_sections_of_a_document_are_twice_the_work(source, all_alike):
    def steps(sections):
        corpus = illustrated(sections, 1 if all_alike else sections)
        config = EpisodeConfig(train=1.0, validation=0.0, source=source)
        return steps_of(lambda: [None for _ in build_episodes(corpus, None, config)])

    steps(20)
    assert steps(600) < 2.3 * steps(300)


@pytest.mark.parametrize("pictures", [1, 5, 300])
def test_what_is_found_costs_no_more_in_a_longer_document(pictures):
    """A corpus with fewer pictures than retrieval is asked for is not searched to its end for each question."""
    corpus = illustrated(300, pictures)
    config = EpisodeConfig(train=1.0, validation=0.0, source="sections")
    rows = list(build_episodes(corpus, WordRetriever(corpus), config))
    assert len(rows) == 300 and all(len(row.candidates) >= min(pictures, 4) for row in rows)


@pytest.mark.parametrize("seed", range(60))
def test_the_window_is_the_best_of_all(seed):
    random = np.random.default_rng(seed)
    sentences, length = int(random.integers(1, 40)), int(random.integers(1, 15))
    slots = random.integers(0, sentences + 1, int(random.integers(0, 12))).tolist()

    def merit(first):
        inside = [slot for slot in slots if (first < slot or first == 0) and slot <= first + length]
        eccentric = abs(sum(inside) / len(inside) - (first + length / 2)) if inside else float("inf")
        return len(inside), -eccentric, -first

    best = max(range(sentences - length + 1), key=merit) if slots and sentences > length else 0
    assert window(sentences, slots, length) == best
