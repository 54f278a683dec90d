"""How well the rules place images on real documents: python -m benchmarks.placing_rules DOCS [source match ...]

DOCS holds the folders that `placing_questions.yaml` names. Each is imported and indexed, its questions are answered
without a policy, and the images are judged by the document the answer was taken from. The text is found there again,
sentence by sentence; right are the images that stand among these sentences, and in place those after the same one.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path

import yaml

from m2io_jax.corpus.documents import Document, TextBlock, is_illustration
from m2io_jax.corpus.importing import import_markdown
from m2io_jax.corpus.store import Corpus
from m2io_jax.episodes.sentences import block_sentences
from m2io_jax.retrieval.search import build_index, index_folder
from m2io_jax.serving.answer import Answer
from m2io_jax.serving.command import answerer

QUESTIONS = Path(__file__).with_name("placing_questions.yaml")


def gold(answer: Answer, document: Document) -> list[tuple[int, str]]:
    """Return (slot, image) of the images that stand among the answer's sentences in its document."""
    wanted = list(answer.sentences)
    images: list[tuple[int, str]] = []
    slot, follows = 0, True
    for block in document.blocks:
        if block.line < answer.sources[0].line:
            continue
        if is_illustration(block):
            if follows:
                images.append((slot, block.picture))
        elif isinstance(block, TextBlock) and block.kind == "heading":
            follows = follows and slot < len(wanted)
        elif isinstance(block, TextBlock):
            for sentence in block_sentences(block):
                follows = slot < len(wanted) and sentence == wanted[slot]
                slot += follows
    return images


def judge(answer: Answer, corpus: Corpus) -> Counter[str]:
    """Count the images of one answer: placed, right, in place, and those that the section holds."""
    known = Counter(gold(answer, corpus.document(answer.sources[0].document)))
    placed = Counter((p.slot, answer.candidates[p.picture].picture) for p in answer.placements)
    right = Counter(picture for _, picture in placed.elements()) & Counter(picture for _, picture in known.elements())
    return Counter(
        answers=1,
        placed=placed.total(),
        right=right.total(),
        in_place=(placed & known).total(),
        known=known.total(),
        without=not known,
        rightly_without=not known and not placed,
    )


def main(docs: Path, inserters: list[str]) -> None:
    """Print a line for each folder and inserter, and one for all folders."""
    for inserter in inserters:
        total: Counter[str] = Counter()
        for name, questions in yaml.safe_load(QUESTIONS.read_text(encoding="utf-8")).items():
            with tempfile.TemporaryDirectory() as folder:
                import_markdown(docs / name, Path(folder, "corpus"))
                corpus = Corpus.open(Path(folder, "corpus"))
                build_index(corpus, index_folder(corpus.path))
                answer = answerer(corpus=corpus.path, inserter=inserter)
                count: Counter[str] = Counter()
                for each in questions:
                    said = answer(each["question"])
                    count += judge(said, corpus) + Counter(page=said.sources[0].path == each["page"])
            print(line(inserter, name, count), flush=True)
            total += count
        print(line(inserter, "all", total), flush=True)


def line(inserter: str, name: str, count: Counter[str]) -> str:
    """Return the counts in words."""
    precision = f"{count['right'] / count['placed']:.0%}" if count["placed"] else "-"
    recall = f"{count['right'] / count['known']:.0%}" if count["known"] else "-"
    return (
        f"{inserter:6} {name:18} {count['answers']} answers, {count['page']} from the page meant;"
        f" images: {count['known']} known, {count['placed']} placed, {count['right']} right, {count['in_place']} in"
        f" place; precision {precision}, recall {recall};"
        f" none shown in {count['rightly_without']} of {count['without']} answers without any"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["source", "match"])
