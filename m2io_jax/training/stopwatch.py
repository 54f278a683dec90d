"""Where a step's time goes."""

import time

import jax


class Stopwatch:
    """Seconds of each part of a step; a measured part is waited for."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def measure(self, name: str, function, *arguments):
        result = jax.block_until_ready(function(*arguments))
        self.lap(name)
        return result

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        key = f"timing_s/{name}"
        self.seconds[key] = self.seconds.get(key, 0.0) + now - self._last
        self._last = now
