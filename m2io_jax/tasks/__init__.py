"""Tasks by name. A new task is one file and one line here."""

from m2io_jax.errors import unknown_name
from m2io_jax.tasks.arithmetic import ArithmeticTask
from m2io_jax.tasks.counting import CountingTask
from m2io_jax.tasks.describe import DescribeTask
from m2io_jax.tasks.find import FindTask
from m2io_jax.tasks.geometry import GeometryTask
from m2io_jax.tasks.inserter import InserterTask
from m2io_jax.tasks.look import LookTask
from m2io_jax.tasks.recite import ReciteTask
from m2io_jax.tasks.task import Task

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        InserterTask("inserter"),
        InserterTask("inserter_told", told=True),
        FindTask(),
        DescribeTask("describe"),
        DescribeTask("describe_three", most=3),
        LookTask(),
        ReciteTask("recite"),
        ReciteTask("recite_scrambled", scrambled=True),
        CountingTask(),
        GeometryTask(),
        ArithmeticTask(),
    )
}


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        UserError: there is none.
    """
    if name not in TASKS:
        raise unknown_name("tasks", name, list(TASKS))
    return TASKS[name]
