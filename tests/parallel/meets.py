"""One of several processes that meet: SECONDS, how long they wait for each other. Ends as the command line does."""

import sys

import jax

from m2io_jax.errors import UserError
from m2io_jax.parallel.hosts import find_place, together

try:
    with together(find_place(), connect_s=int(sys.argv[1])):
        print(f"met as {jax.process_index()} of {jax.process_count()}", flush=True)
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
