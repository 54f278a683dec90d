"""Lets these tests import `killed_run` (pytest's importlib mode leaves test folders off the path)."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "training")]
