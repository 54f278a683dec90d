"""The command line's edge: what a user can mend is told on one screen, with an exit status, and without a traceback."""

import errno
import json
import os
from pathlib import Path

import pytest

from m2io_jax import cli
from m2io_jax.errors import UserError

PLANS = str(Path(__file__).resolve().parents[1] / "configs" / "reproduce")
CONFIG = "name: t\nobjective: supervised\nsteps: 1\n"


@pytest.fixture
def m2io(monkeypatch, capsys, tmp_path):
    """Runs the command in an empty folder; returns its exit status and what it wrote."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "page.md").write_text("# Page\n\nText.\n")

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["m2io", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out + said.err

    return run


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "config.yaml", "stepz=3"), ("stepz", "steps")),
        (("train", "config.yaml", "steps=many"), ("steps", "many")),
        (("train", "config.yaml", "steps"), ("steps", "key=value")),
        (("train", "nowhere.yaml"), ("nowhere.yaml",)),
        (("train", "config.yaml"), ("episodes=FOLDER",)),
        (("train", "config.yaml", "episodes=none", "init=random"), ("none", "m2io episodes")),
        (("train", "config.yaml", "tasks.insrter=1", "episodes=none"), ("insrter", "inserter")),
        (("train", "config.yaml", "objective=grpo", "episodes=none", "rewards.selecton=1"),
         ("rewards.selecton", "did you mean `rewards.selection`")),
        (("train", "config.yaml", "objective=grpo", "episodes=none", "tasks={counting: 1}"),
         ("rewards.order", "accuracy, format")),
        (("evaluate", "nowhere"), ("nowhere", "m2io train")),
        (("evaluate", "rules"), ("--gold",)),
        (("answer", "one", "two", "three"), ("One question",)),
        (("answer", "nowhere", "How?"), ("nowhere", "m2io train")),
        (("index", "nowhere"), ("nowhere",)),
        (("sweep", "nowhere.yaml"), ("nowhere.yaml",)),
        (("sweep", "config.yaml"), ("objective", "allowed")),
        (("sweep", "report"), ("SWEEP.yaml",)),
        (("corpus", "import", "kitchen", "out", "documents=abc"), ("documents=abc", "whole number")),
        (("corpus", "import", "kitchen", "out", "dokuments=3"), ("dokuments", "documents")),
        (("corpus", "import", "markdown", "nowhere", "out"), ("nowhere",)),
        (("read", "rows", "nowhere", "out"), ("nowhere",)),
        (("read", "rows", "page.md", "out"), ("page.md", ".jsonl")),
        (("read", "rows", ".", "out", "train=2"), ("train", "0 to 1")),
        (("read", "clevr", ".", "out"), ("dataset_info.json", "clevr/3.1.0")),
        (("generate", "countin", "out"), ("countin", "counting")),
        (("generate", "counting", "out", "most=0"), ("most", "1 to 25")),
        (("generate", "counting", "out", "moost=3"), ("moost", "most")),
        (("generate", "counting", "out", "--count", "0"), ("--count", "1 or more")),
        (("generate", "geometry", "out", "kinds=circle"), ("circle", "perimeter")),
        (("reproduce", "othink", "--plans", PLANS), ("othink", "othink-mr1")),
        (("reproduce", "lmm-r1", "--plans", PLANS, "arms.mgt.steps=3"), ("mgt", "mgt_geo")),
        (("corpus", "import", "markdown", ".", "config.yaml/out"), ("config.yaml",)),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_the_user_can_mend_is_told(m2io, words, told):
    status, said = m2io(*words)
    plain = "".join(said.split())
    assert status == 1
    assert "Traceback" not in said and len(said.splitlines()) < 20
    assert all("".join(name.split()) in plain for name in told), said


@pytest.mark.parametrize("words", [("evalute",), ("index",), ("train", "config.yaml", "--fast")], ids=" ".join)
def test_slips_of_usage_are_told_as_usage(m2io, words):
    status, said = m2io(*words)
    assert status == 2 and "Usage" in said and "Traceback" not in said


def test_a_half_line_of_gold_is_named(m2io, tmp_path):
    (tmp_path / "gold.jsonl").write_text('{"subset": "wit", "qid"')
    status, said = m2io("evaluate", "rules", "--gold", "gold.jsonl")
    assert status == 1 and "gold.jsonl" in said and "1" in said and "Traceback" not in said


def test_markup_in_a_name_is_shown_as_it_is(m2io):
    status, said = m2io("evaluate", "[bold]run")
    assert status == 1 and "[bold]run" in said


def test_a_long_path_stays_on_its_line(m2io):
    run = "/".join(["folder"] * 30)
    assert f"where: {run}/config.yaml\n" in m2io("evaluate", run)[1]
    (status, said), folder = m2io("generate", "arithmetic", run, "--count", "20"), run
    assert status == 0 and f"{folder}: 16 train, 1 validation, 3 test\n" in said


def test_a_full_disk_is_told(m2io, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.jsonl")

    monkeypatch.setattr(cli, "app", full)
    status, said = m2io("train", "config.yaml")
    assert status == 1 and "disk is full" in said and "same command again" in " ".join(said.split())


def test_a_truncated_picture_is_listed_and_the_import_goes_on(m2io, tmp_path):
    from PIL import Image

    tree = tmp_path / "tree"
    tree.mkdir()
    Image.effect_noise((64, 64), 50).save(tree / "whole.png")
    (tree / "half.png").write_bytes((tree / "whole.png").read_bytes()[:600])
    header = bytearray((tree / "whole.png").read_bytes())
    header[16:24] = (40_000).to_bytes(4, "big") * 2
    (tree / "bomb.png").write_bytes(header)
    (tree / "page.md").write_text("# Page\n\nText.\n\n![a](whole.png)\n\n![b](half.png)\n\n![c](bomb.png)\n")
    monkey = m2io("corpus", "import", "markdown", "tree", "out")
    assert monkey[0] == 0
    report = json.loads((tmp_path / "out" / "import_report.json").read_text())
    assert report["pictures"] == {
        "references": 3, "kept": 1, "missing": 0, "broken": 2, "unsupported": 0, "remote": 0,
    }  # fmt: skip


def test_problems_are_generated_and_published_rows_are_read(m2io, tmp_path):
    status, said = m2io("generate", "arithmetic", "made", "largest=7", "--count", "20", "--seed", "3")
    assert status == 0 and "16 train, 1 validation, 3 test" in said
    assert json.loads((tmp_path / "made" / "episodes.json").read_text())["generated"]["largest"] == 7
    (tmp_path / "rows.jsonl").write_text('{"problem": "Q?", "answer": "3"}\n{"problem": "Q?"}\n')
    status, said = m2io("read", "rows", "rows.jsonl", "read", "train=1", "validation=0")
    assert status == 0 and "2 rows read, 1 kept" in said and "1 left out: no answer" in said


def test_the_help_of_a_sweep_says_how_its_report_is_asked_for(m2io):
    status, said = m2io("sweep", "--help")
    assert status == 0 and "report SWEEP.yaml" in said  # in brackets it would be taken for a style, and be left out


def test_a_run_on_problems_has_no_documents_to_answer_from(m2io, tmp_path):
    m2io("generate", "arithmetic", "made", "--count", "20")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(CONFIG + "tasks: {arithmetic: 1}\nepisodes: made\n")
    status, said = m2io("answer", "run", "How many?")
    assert status == 1 and "made" in said and "--corpus FOLDER" in said and "Traceback" not in said


def test_settings_of_a_section_take_the_type_of_their_default():
    from m2io_jax.episodes.building import EpisodeConfig

    made = cli._with(EpisodeConfig(), ["empty=0", "max_candidates=5", "source=sections"], "episodes")
    assert (made.empty, made.max_candidates, made.source) == (0.0, 5, "sections")
    for wrong in ("seed=abc", "seed=1.5", "empty=[", "max_candidates=true", "nothing=1", "seed"):
        with pytest.raises(UserError):
            cli._with(EpisodeConfig(), [wrong], "episodes")
