"""Generated problems by the task that they are for. A new kind of problem is one file and one line here."""

from m2io_jax.episodes.generated.figures import FigureConfig
from m2io_jax.episodes.generated.problems import ProblemConfig
from m2io_jax.episodes.generated.scenes import SceneConfig
from m2io_jax.errors import unknown_name

GENERATED: dict[str, type[SceneConfig] | type[FigureConfig] | type[ProblemConfig]] = {
    "counting": SceneConfig,
    "geometry": FigureConfig,
    "arithmetic": ProblemConfig,
}


def find_generated(task: str) -> SceneConfig | FigureConfig | ProblemConfig:
    """The default settings of a task's problems.

    Raises:
        UserError: for that task nothing is generated.
    """
    if task not in GENERATED:
        raise unknown_name("generate", task, list(GENERATED))
    return GENERATED[task]()
