"""A sink that works in a thread of its own, so that no step waits for a server."""

import queue
import threading
from collections.abc import Mapping

from m2io_jax.training.logging.samples import Samples
from m2io_jax.training.logging.sink import Sink

WAITING = 1000  # pieces of news; more are dropped, so that a server that is away does not fill the memory
PATIENCE_S = 60.0


class Background(Sink):
    """Hands everything on in order. What the sink raises is raised by the next call, so that somebody hears of it.

    Args:
        sink: opened already; from now on only the thread uses it.
        patience: seconds that `close` waits for what is left.
    """

    def __init__(self, sink: Sink, patience: float = PATIENCE_S):
        self._sink, self._patience = sink, patience
        self._waiting: queue.Queue[tuple | None] = queue.Queue(WAITING)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="logging", daemon=True)
        self._thread.start()

    def write(self, step: int, metrics: Mapping[str, float | None]) -> None:
        self._hand_on((self._sink.write, step, metrics))

    def show(self, samples: Samples) -> None:
        self._hand_on((self._sink.show, samples))

    def truncate_after(self, step: int) -> None:
        self._hand_on((self._sink.truncate_after, step))

    def close(self, finished: bool) -> None:
        for job in ((self._sink.close, finished), None):
            self._waiting.put(job, timeout=self._patience)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            raise TimeoutError(f"not all was logged within {self._patience:g} s")
        self._raise()

    def _hand_on(self, job: tuple) -> None:
        self._waiting.put_nowait(job)  # queue.Full: this piece of news is lost, the run is not
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            act, *arguments = job
            try:
                act(*arguments)
            except Exception as error:
                self._error = error
