"""A small corpus in memory, and a retriever that ranks by words in common."""

import hashlib
import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from m2io_jax.corpus.documents import AnswerPicture, Document, PictureBlock, Question, TextBlock
from m2io_jax.errors import UserError
from m2io_jax.retrieval.passages import PicturePlace
from m2io_jax.retrieval.search import PictureHit


def png(value: int, size: tuple[int, int] = (6, 5)) -> bytes:
    """A picture unlike that of any other value below 2**24."""
    colour = (value & 255, value >> 8 & 255, value >> 16)
    stored = io.BytesIO()
    Image.new("RGB", size, colour).save(stored, format="PNG")
    return stored.getvalue()


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class FakeCorpus:
    documents: tuple[Document, ...]
    questions: tuple[Question, ...] = ()
    files: dict[str, bytes] = field(default_factory=dict)

    def picture(self, hash: str) -> bytes:
        if hash not in self.files:
            raise UserError(f"no picture {hash}")
        return self.files[hash]


class WordRetriever:
    """Ranks every picture of the corpus by the words its content or caption shares with the question."""

    def __init__(self, corpus: FakeCorpus):
        self._places = [
            PicturePlace(block.picture, document.id, position, block.caption, "", "", "", document.title)
            for document in corpus.documents
            for position, block in enumerate(document.blocks)
            if isinstance(block, PictureBlock)
        ]

    def pictures_batch(self, questions, k):
        return [self._rank(question)[:k] for question in questions]

    def _rank(self, question: str) -> list[PictureHit]:
        words = set(question.lower().split())
        scores = [len(words & set(place.caption.lower().split())) for place in self._places]
        order = np.argsort(-np.array(scores), kind="stable")
        return [PictureHit(float(scores[i]), self._places[i]) for i in order]


COLOURS = ("red", "green", "blue", "white")
THINGS = ("tomato", "onion", "egg", "pepper", "carrot")


def kitchen(dishes: int = 40, seed: int = 0) -> FakeCorpus:
    """Recipes of four steps, each with its picture; a question on three of them and one that no picture answers."""
    random = np.random.default_rng(seed)
    documents, questions, files, counter = [], [], {}, 0
    for dish in range(dishes):
        blocks, contents = [TextBlock(f"Dish {dish}", 1, "heading", 1)], []
        shows = [f"{c} {t}" for c in COLOURS for t in THINGS]
        for step in random.permutation(len(shows))[:4]:
            content = shows[step]
            counter += 1
            data = png(counter)
            files[name_of(data)] = data
            blocks += [TextBlock(f"Now cut the {content}.", 2), PictureBlock(name_of(data), 3, content, content)]
            contents.append(content)
        id = f"dish-{dish}"
        documents.append(Document(id, f"Dish {dish}", f"{id}.md", group=f"group-{dish}", blocks=tuple(blocks)))
        pictures = [block.picture for block in blocks if isinstance(block, PictureBlock)]
        gold = tuple(AnswerPicture(pictures[i], i + 1) for i in range(3))
        sentences = tuple(f"Cut a {content} now." for content in contents[:3])
        questions.append(Question(f"{id}-a", id, f"How do I make dish {dish}?", sentences, gold, tuple(contents[:3])))
        questions.append(Question(f"{id}-b", id, "How long does it keep?", ("Two days.", "Then not."), (), ("", "")))
    return FakeCorpus(tuple(documents), tuple(questions), files)
