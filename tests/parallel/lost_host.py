"""One of several processes, of which one is killed while the others wait: LOST, its number."""

import os
import signal
import sys
import time

import jax

from m2io_jax.parallel.exchange import wait_for_all
from m2io_jax.parallel.hosts import find_place, together

with together(find_place()):
    wait_for_all("begun")
    if jax.process_index() == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # as in a collective that the other will never enter
