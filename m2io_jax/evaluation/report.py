"""A run's report: one page that needs nothing from elsewhere and no script, for a phone as for a screen."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml

from m2io_jax.episodes.episode import Episode, Placement
from m2io_jax.episodes.reading import TextPart, by_slot, parts
from m2io_jax.evaluation.curves import DARK, LIGHT, Curve, draw_curves, read_curves
from m2io_jax.evaluation.results import METRICS, Results, heading, left_out, rows
from m2io_jax.files import write_at_once
from m2io_jax.pages import environment, picture_view
from m2io_jax.picture_metrics import picture_scores, reading_order
from m2io_jax.tasks.task import labelled_question

# Verdict on a picture: its symbol and what it says. Colour alone would not reach everybody.
VERDICTS = {
    "right": ("✓", "right"),
    "moved": ("↕", "right picture, wrong place"),
    "wrong": ("✗", "wrong picture"),
    "missed": ("○", "missed"),
}
SMALL = 160  # pixels of the longer side of pictures that were not used


@dataclass(frozen=True)
class Sample:
    """One answer to show.

    Attributes:
        completion: what the model wrote, or nothing for a rule.
        placements: what was read from it; None where it was not valid.
        rewards: reward parts by name.
        reasoning: the part of the completion to show first; all of it where this is empty.
    """

    episode: Episode
    completion: str
    placements: tuple[Placement, ...] | None
    rewards: Mapping[str, float] = field(default_factory=dict)
    reasoning: str = ""


def write_report(
    path: str | Path,
    results: Results,
    samples: Sequence[Sample],
    metrics: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> Path:
    """Writes the page to `path` in one step and returns the path.

    Args:
        results: for the headline, the table and the configuration.
        samples: answers to show, a dozen or so.
        metrics: title → rows of `read_metrics`; their curves are drawn.

    Raises:
        UserError: `path` cannot be written.
    """
    write_at_once(path, render_report(results, samples, metrics), what="report")
    return Path(path)


def render_report(
    results: Results,
    samples: Sequence[Sample],
    metrics: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """The page's text; see `write_report`."""
    config = json.loads(json.dumps(dict(results.config), default=str))
    return environment("m2io_jax.evaluation").get_template("report.html").render(
        headline=headline(results),
        results=results,
        left_out=left_out(results),
        metrics=[heading(metric) for metric in METRICS],
        policies=[(policy, list(each)) for policy, each in groupby(rows(results), key=attrgetter("policy"))],
        courses={title: [_drawn(curve) for curve in read_curves(each)] for title, each in (metrics or {}).items()},
        samples=[sample_view(sample) for sample in samples],
        verdicts=VERDICTS,
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True, default_flow_style=None) if config else "",
    )


def headline(results: Results) -> str:
    """What came out, in a sentence or two; says only what the results hold."""
    changes = []
    for decoding in ("sampled", "greedy"):
        base, grpo = _mean(results, "base", decoding), _mean(results, "grpo", decoding)
        if base is not None and grpo is not None:
            changes.append(f"from {base:.1f} to {grpo:.1f} points for {decoding} answers")
    where = f", on {results.episodes} held-out episodes" if results.episodes else ""
    beside = _beside(results)
    sentences = [f"GRPO takes picture F1 {' and '.join(changes)}{where}."] if changes else []
    if beside:
        sentences.append("; ".join(beside)[0].upper() + "; ".join(beside)[1:] + ".")
    return " ".join(sentences) or "Nothing was evaluated."


def _beside(results: Results) -> list[str]:
    """What stands beside GRPO, as far as it was measured."""
    said = []
    supervised = _mean(results, "sft_same_time", "sampled")
    if supervised is not None:
        said.append(f"supervision for the same time gives {supervised:.1f} for sampled answers")
    rules = [_mean(results, "rules", rule) for rule in results.scores.get("rules", {})]
    if rules := [value for value in rules if value is not None]:
        said.append(f"the best rule reaches {max(rules):.1f}")
    plain, shuffled = (_mean(results, policy, "greedy", "f1_with_gold") for policy in ("grpo", "grpo_pixels_shuffled"))
    if plain is not None and shuffled is not None:
        said.append(
            f"with the candidates' pixels shuffled among themselves, F1 where pictures belong goes from {plain:.1f} to "
            f"{shuffled:.1f}"
        )
    return said


def sample_view(sample: Sample) -> dict[str, Any]:
    """What the template needs of a sample: its parts in reading order, each picture with a verdict."""
    episode, placed = sample.episode, sample.placements or ()
    gold = {placement.picture: placement.slot for placement in episode.gold}
    chosen = {placement.picture: placement.slot for placement in placed}
    missed = [placement for placement in episode.gold if placement.picture not in chosen]
    missing = {placement.picture for placement in missed}
    reading = []
    for part in parts(episode.sentences, by_slot([*placed, *missed], len(episode.sentences))):
        if isinstance(part, TextPart):
            reading.append({"text": part.text, "verbatim": part.verbatim})
            continue
        reading.append({"pictures": [_judged(episode, i, part.slot, gold, missing) for i in part.pictures]})
    unused = [i for i in range(len(episode.candidates)) if i not in chosen and i not in gold]
    return {
        "question": labelled_question(episode),
        "parts": reading,
        "unused": [picture_view(episode.candidates, index, SMALL) for index in unused],
        "valid": sample.placements is not None,
        "rewards": dict(sample.rewards),
        "f1": picture_scores(reading_order(placed), reading_order(episode.gold)).f1,
        "reasoning": sample.reasoning.strip(),
        "completion": sample.completion,
        "no_gold": not episode.gold,
        "nothing_placed": not placed,
    }


def _judged(episode: Episode, index: int, slot: int, gold: Mapping[int, int], missing: set[int]) -> dict[str, Any]:
    """A picture as it stands in `slot`, with the verdict on it."""
    if index in missing:
        verdict, note = "missed", ""
    elif index not in gold:
        verdict, note = "wrong", ""
    elif gold[index] == slot:
        verdict, note = "right", ""
    else:
        verdict, note = "moved", f"belongs {_place(gold[index])}"
    symbol, words = VERDICTS[verdict]
    return picture_view(episode.candidates, index) | {
        "verdict": verdict,
        "symbol": symbol,
        "words": ", ".join(filter(None, [words, note])),
    }


def _place(slot: int) -> str:
    return f"after sentence {slot}" if slot else "before the text"


def _mean(results: Results, policy: str, decoding: str, metric: str = "f1") -> float | None:
    value = results.scores.get(policy, {}).get(decoding, {}).get(metric)
    return None if value is None else value["mean"]


def _drawn(curve: Curve) -> dict[str, str]:
    """A curve for both of the page's colour schemes."""
    return {"title": curve.title, "light": _uri(draw_curves([curve], LIGHT)), "dark": _uri(draw_curves([curve], DARK))}


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
