"""The inserter's task: say where each picture belongs, after looking at it.

`MANUAL` shows a completion: lines of reasoning, then lines of the answer. There `A:2` places picture A in slot 2, after
the second sentence; slot 0 is before the first. `none` alone places nothing.
The M2IO-R1 paper's prompt, tags and rewards are not public: these are this project's own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from m2io_jax.episodes.episode import Episode, Placement
from m2io_jax.episodes.prompt import Prompt
from m2io_jax.grammar import Step
from m2io_jax.picture_metrics import (
    abstention,
    order_score,
    picture_scores,
    placement_accuracy,
    precision_recall_f1,
    reading_order,
)
from m2io_jax.tasks.task import (
    description,
    label,
    number_sentences,
    plain,
    show_pictures,
    tell_pictures,
    unlabel,
    unstopped,
)

MANUAL = """\
You get a question, the sentences of its answer, and pictures. After each sentence stands its slot (=1, =2, ...): the \
place after it. Slot 0 is the place before the first sentence. After each picture stands its letter.
Think first: for each picture one line with its letter, what it shows, the end of the sentence that says so, and that \
sentence's slot; or =none for a picture that illustrates no sentence. Then answer: one line with letter and slot for \
each picture that belongs to the answer, or the single line none. Write nothing else. For example:
<think>
A three red tomatoes with the knife=2
B one blue egg=none
</think>
<answer>
A:2
</answer>"""

METRICS = ("f1", "precision", "recall", "order", "placement", "f1_with_gold", "abstention", "validity", "reward")

QUOTED_WORDS = 6  # of a sentence that does not say what the picture shows

COMPLETION = re.compile(
    r"<think>\n(?P<think>(?:(?!</?think>|</?answer>).)*)</think>\n<answer>\n(?P<answer>none\n|(?:[A-Z]+:[0-9]+\n)+)</answer>",
    re.DOTALL,
)


@dataclass(frozen=True)
class Parsed:
    """What a completion says. `placements` keeps the order of mention; `thinking` is the text between the tags."""

    placements: tuple[Placement, ...]
    thinking: str


def write(lines: list[str], placements: tuple[Placement, ...]) -> str:
    """A completion in the grammar that `parse` reads."""
    answer = "".join(f"{label(placement.picture)}:{placement.slot}\n" for placement in placements) or "none\n"
    return "<think>\n" + "".join(line + "\n" for line in lines) + "</think>\n<answer>\n" + answer + "</answer>"


def parse(completion: str, episode: Episode) -> Parsed | None:
    """The placements of a completion, or None where it breaks the grammar, names a picture or slot that does not exist,
    or places a picture twice."""
    match = COMPLETION.fullmatch(completion)
    if match is None:
        return None
    lines = [] if match["answer"] == "none\n" else match["answer"].split()
    pairs = [line.split(":") for line in lines]
    if any(len(slot) > 6 for _, slot in pairs):
        return None
    placements = tuple(Placement(slot=int(slot), picture=unlabel(letters)) for letters, slot in pairs)
    pictures = [placement.picture for placement in placements]
    in_range = all(p.picture < len(episode.candidates) and p.slot <= len(episode.sentences) for p in placements)
    return Parsed(placements, match["think"]) if in_range and len(set(pictures)) == len(pictures) else None


def measure(placements: Sequence[Placement] | None, episode: Episode) -> dict[str, float | None]:
    """MRAMG-Bench's scores of placements (arXiv 2502.04176), abstention and validity, in [0, 1]; None where one does
    not apply.

    Args:
        placements: in the order of mention; None where the completion was not valid, which counts as nothing inserted.
    """
    placed = tuple(placements or ())
    ids, gold = reading_order(placed), reading_order(episode.gold)
    scores = picture_scores(ids, gold)
    return {
        "f1": scores.f1,
        "precision": scores.precision,
        "recall": scores.recall,
        "order": scores.order,
        "placement": placement_accuracy(placed, episode.gold),
        "f1_with_gold": scores.f1 if gold else None,
        "abstention": abstention(ids, gold),
        "validity": float(placements is not None),
    }


class CompletionGrammar:
    """`COMPLETION` as an automaton over bytes, for constrained decoding. Labels are one letter, slots up to `most`.

    States: ("head", i), ("think", start of a tag that was read), ("mid", i), ("line", whether one stands before),
    ("none", i), ("label",), ("slot", digits), ("tail", i), ("end",).
    """

    HEAD, MID, TAIL = b"<think>\n", b"\n<answer>\n", b"</answer>"
    TAGS = (b"<think>", b"</think>", b"<answer>", b"</answer>")

    start, end = ("head", 0), ("end",)

    def __init__(self, most: int = 99):
        self.most = most

    def step(self, state, byte: int) -> Step | None:
        kind = state[0]
        if kind == "think":
            return self._think(state[1] + bytes([byte]))
        if kind == "line":
            if ord("A") <= byte <= ord("Z"):
                return Step(("label",), label=byte - ord("A"))
            literal = ("tail", 0) if state[1] else ("none", 0)
            return self.step(literal, byte)
        if kind == "label":
            return Step(("slot", "")) if byte == ord(":") else None
        if kind == "slot":
            digits = state[1] + chr(byte)
            if byte == ord("\n") and state[1]:
                return Step(("line", True))
            canonical = digits.isascii() and digits.isdigit() and (digits == "0" or digits[0] != "0")
            return Step(("slot", digits), slot=int(digits)) if canonical and int(digits) <= self.most else None
        return self._literal(*state, byte) if kind != "end" else None

    def _literal(self, kind: str, place: int, byte: int) -> Step | None:
        text, then = {
            "head": (self.HEAD, ("think", b"")),
            "mid": (self.MID, ("line", False)),
            "none": (b"none\n", ("tail", 0)),
            "tail": (self.TAIL, self.end),
        }[kind]
        if text[place] != byte:
            return None
        return Step((kind, place + 1) if place + 1 < len(text) else then)

    def _think(self, read: bytes) -> Step | None:
        """`read` ends in what may become a tag: the longest such end is what matters."""
        for begin in range(len(read) + 1):
            rest = read[begin:]
            if rest in self.TAGS:
                return Step(("mid", 0)) if rest == b"</think>" else None
            if any(tag.startswith(rest) for tag in self.TAGS):
                return Step(("think", rest))
        return None  # never: the empty rest starts every tag


def selection_reward(placed: tuple[Placement, ...], gold: tuple[Placement, ...]) -> float:
    """F1 of the set of pictures; 1 for rightly placing none."""
    return precision_recall_f1((p.picture for p in placed), (p.picture for p in gold))[2]


def placement_reward(placed: tuple[Placement, ...], gold: tuple[Placement, ...]) -> float:
    """As F1, where a picture in its slot counts 1, in a neighbouring slot one half, elsewhere 0."""
    if not placed and not gold:
        return 1.0
    slots = {p.picture: p.slot for p in gold}
    distances = [abs(slots[p.picture] - p.slot) for p in placed if p.picture in slots]
    credit = sum(1.0 if distance == 0 else 0.5 if distance == 1 else 0.0 for distance in distances)
    return 2 * credit / (len(placed) + len(gold))


def order_reward(placed: tuple[Placement, ...], gold: tuple[Placement, ...]) -> float:
    """MRAMG-Bench's ordering score (arXiv 2502.04176) of the pictures in the order a reader meets them."""
    return order_score(reading_order(placed), reading_order(gold))


class InserterTask:
    """Place the pictures (docs/decisions.md, 5 and 6).

    Args:
        name: of the task.
        told: tell every picture in words instead of showing it. The same task as text alone, learnt first as LMM-R1
            does (arXiv 2503.07536); nothing that words say is in doubt, so it teaches the exact gold.
    """

    rewards = ("format", "selection", "placement", "order")
    metrics = METRICS
    grammar = CompletionGrammar()

    def __init__(self, name: str, told: bool = False):
        self.name, self.told = name, told

    def prompt(self, episode: Episode) -> Prompt:
        pictures = tell_pictures(episode) if self.told else show_pictures(episode)
        user = (episode.question + "\n", *number_sentences(episode.sentences), *pictures)
        return Prompt("Place the pictures.", user, MANUAL)

    def target(self, episode: Episode) -> str | None:
        placements = episode.gold if self.told else episode.labels
        if self.told and not all(map(description, episode.candidates)):
            return None
        slots = {placement.picture: placement.slot for placement in placements}
        lines = [self._think(episode, index, slots.get(index)) for index in range(len(episode.candidates))]
        return write(lines, tuple(sorted(placements)))

    @staticmethod
    def names(episode: Episode) -> tuple[int, int]:
        """Labels and last slot of what constrained decoding may place."""
        return len(episode.candidates), len(episode.sentences)

    @staticmethod
    def _think(episode: Episode, index: int, slot: int | None) -> str:
        """What the picture shows, then the rest of the sentence that says so, and its slot.

        Reading on in the sentence is what finds it: the words that were just said stand there too.
        """
        shown = description(episode.candidates[index])
        if slot is None:
            return f"{label(index)} {shown}=none"
        sentence = unstopped(plain(episode.sentences[slot - 1])) if slot else ""
        _, said, rest = sentence.partition(shown) if shown else ("", "", "")
        quoted = rest if said else ": " + " ".join(sentence.split()[-QUOTED_WORDS:])
        return f"{label(index)} {shown}{quoted}={slot}"

    def score(self, completion: str, episode: Episode) -> dict[str, float]:
        parsed = parse(completion, episode)
        if parsed is None:
            return dict.fromkeys(self.rewards, 0.0)
        placed, gold = parsed.placements, episode.gold
        return {
            "format": 1.0,
            "selection": selection_reward(placed, gold),
            "placement": placement_reward(placed, gold),
            "order": order_reward(placed, gold),
        }

    def measure(self, completion: str, episode: Episode, parts: Mapping[str, float]) -> dict[str, float | None]:
        parsed = parse(completion, episode)
        return measure(parsed and parsed.placements, episode)
