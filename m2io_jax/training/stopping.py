"""A run that is asked to stop ends its step, saves, and exits with a status that says whether to start it again.

    SIGTERM   the machine is about to be taken away: status 75 (EX_TEMPFAIL), on which launchers start it again
    SIGINT    somebody pressed Ctrl-C, or gave a launcher the command `stop`: status 130, as shells have it
"""

import os
import signal
import threading
from types import FrameType
from typing import Self

TOLD = b"\nstopping after this step; a second signal stops at once\n"
STATUS = {signal.SIGTERM: os.EX_TEMPFAIL, signal.SIGINT: 128 + signal.SIGINT}


class StopSignals:
    """Notes the first signal that asks to stop while the context is open; a second one acts as it always would.

    In a thread that is not the main one Python handles no signals, so there none is noted.

    Attributes:
        status: to exit with; 0 while nobody asked.
    """

    def __init__(self):
        self.status = 0
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.status = STATUS[signal.Signals(number)]
        self._put_back()
        os.write(2, TOLD)  # a signal may come while something is being printed

    def _put_back(self) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STATUS}
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back()
