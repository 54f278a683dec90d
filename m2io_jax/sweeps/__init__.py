"""Sweeps: many runs of one plan, their names, running them, and what came out."""
