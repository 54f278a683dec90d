"""The commands that the READMEs show are ones that there are."""

import re
import shlex

import pytest
import typer
import yaml
from launcher_commands import ROOT, dry_run

from m2io_jax.cli import app
from m2io_jax.parallel.topologies import find_topology

PLACE = {"CLOUDSDK_CORE_PROJECT": "p", "CLOUDSDK_COMPUTE_ZONE": "z", "M2IO_IMAGE": "i"}


def shown(readme: str, program: str) -> list[list[str]]:
    """The words of each command of a program in a README's blocks; what a bash array holds stands in its place."""
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", (ROOT / readme).read_text(), re.DOTALL | re.MULTILINE))
    lines = blocks.replace("\\\n", " ").splitlines()
    arrays = dict(re.findall(r"^(\w+)=\((.*)\)$", "\n".join(lines), re.MULTILINE))
    found = []
    for line in lines:
        for name, words in arrays.items():
            line = line.replace(f'"${{{name}[@]}}"', words)
        commands = re.split(r"\s&&\s", line)
        found += [words for words in (shlex.split(each, comments=True) for each in commands) if words]
    return [words for words in found if words[0].startswith(program)]


LAUNCHED = shown("launch/README.md", "launch/")


@pytest.mark.parametrize("words", [*LAUNCHED, *shown("README.md", "launch/")], ids=" ".join)
def test_a_launchers_command_is_one(words):
    assert dry_run([*words[:2], "--dry-run", *words[2:]], **PLACE)


TRAINED = [words for words in LAUNCHED if "--topology" in words and "train" in words]


@pytest.mark.parametrize("words", TRAINED, ids=" ".join)
def test_prompts_are_shared_out_evenly_to_the_chips(words):
    config = yaml.safe_load((ROOT / words[words.index("train") + 1]).read_text())
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    prompts = int(settings.get("batch.prompts", config["batch"]["prompts"]))
    assert prompts % find_topology(words[words.index("--topology") + 1]).all_devices == 0


@pytest.mark.parametrize("words", [*shown("launch/README.md", "m2io"), *shown("README.md", "m2io")], ids=" ".join)
def test_a_command_of_m2io_is_one(words):
    command, rest = typer.main.get_command(app), words[1:]
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(words[0], rest)  # raises where an option or an argument is not one


def test_the_way_from_documents_to_an_inserter_is_there():
    assert {words[1] for words in LAUNCHED} == {"run", "image", "logs", "fetch", "delete"}
    assert {words[1] for words in shown("launch/README.md", "m2io")} == {"corpus", "index", "episodes"}
