"""The data-side methods by name, in the order in which they see what was scored. A new one is one file here, one line
here, and its section in the configuration (config/data.py).

They are bookkeeping in NumPy, float64, with no model in sight. What changes sampling itself (`noise`) or what an update
is made of (`replay`) is no `Method` but functions of its own.
"""

from m2io_jax.rl.data.curriculum import Curriculum
from m2io_jax.rl.data.filter import Filter
from m2io_jax.rl.data.history import History
from m2io_jax.rl.data.method import Method
from m2io_jax.rl.data.single import Single

METHODS: dict[str, type[Method]] = {
    "history": History,
    "filter": Filter,
    "curriculum": Curriculum,
    "single": Single,
}
