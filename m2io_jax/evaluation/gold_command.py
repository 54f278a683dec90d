"""What the command `m2io evaluate rules` does; apart, because it needs no model and should start at once."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from m2io_jax.errors import UserError
from m2io_jax.evaluation.gold import evaluate_rules


def evaluate_gold(path: Path | None, as_json: bool, out: Console) -> None:
    """Prints the rules' scores on MRAMG-Bench's gold lists, in points.

    Raises:
        UserError: no file, or a damaged one.
    """
    if path is None:
        raise UserError("The rules need gold lists.", mend="add --gold FILE")
    scores = evaluate_rules(path)
    if as_json:
        print(json.dumps(scores))
        return
    shown = Table("rule", "subset", "precision", "recall", "F1", "order", box=None)
    for rule, subsets in scores.items():
        for subset, values in subsets.items():
            shown.add_row(rule, subset, *(f"{values[name]:.1f}" for name in ("precision", "recall", "f1", "order")))
    out.print(shown)
