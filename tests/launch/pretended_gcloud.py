"""Stands in for gcloud: `PRETENDED` is a folder with what there is of one queued resource.

    state        at what it is; no file: there is none
    becomes      at what it is once it is created, one line a creation; where there is no line: ACTIVE
    asked        the flags it was created with, one line a creation
    calls        one line a call: its verb
    words        one line a call: all its words
    broken       if it is there, the next copy fails
    worker0...   the home folder of each machine
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

CLOUD = Path(os.environ["PRETENDED"])


def machines() -> list[Path]:
    return sorted(CLOUD.glob("worker*"))


def main(words: list[str]) -> int:
    assert words[:3] == ["compute", "tpus", "queued-resources"], words
    assert {"--project=p", "--zone=z"} <= set(words), words
    verb, state = words[3], CLOUD / "state"
    flags = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    with (CLOUD / "calls").open("a") as calls:
        calls.write(f"{verb} {flags.get('command', '')}".strip() + "\n")
    with (CLOUD / "words").open("a") as calls:
        calls.write(shlex.join(words[3:]) + "\n")
    if verb == "list":
        print(state.read_text() if state.exists() else "")
    elif verb == "create":
        assert not state.exists()
        with (CLOUD / "asked").open("a") as asked:
            asked.write(" ".join(words[4:]) + "\n")
        for number in range(int(flags.get("node-count", 1))):
            (CLOUD / f"worker{number}").mkdir()
        becomes = CLOUD / "becomes"
        states = becomes.read_text().split() if becomes.exists() else []
        becomes.write_text("\n".join(states[1:]))
        state.write_text([*states, "ACTIVE"][0])
    elif verb == "describe":
        assert "--format=yaml(state)" in words
        print(f"state:\n  state: {state.read_text()}\n  failedData: out of quota")
    elif verb == "delete":
        assert "force" in flags and "quiet" in flags
        state.unlink()
        for home in machines():
            shutil.rmtree(home)
    elif verb == "scp" and ":" in words[4]:
        shutil.copy(machines()[0] / words[4].partition(":")[2], words[5])
    elif verb == "scp" and (CLOUD / "broken").exists():
        (CLOUD / "broken").unlink()
        return 1
    elif verb == "scp":
        for home in machines():
            shutil.copyfile(words[4], home / words[5].partition(":")[2])
    elif verb == "ssh":
        if state.read_text() != "ACTIVE":
            return 255
        homes = machines() if flags["worker"] == "all" else machines()[:1]
        # Of the launcher's environment a machine has nothing but what makes it a pretended one.
        own = {name: os.environ[name] for name in ("PATH", "PRETENDED", "TREE")}
        shell = {"shell": True, "executable": "/bin/bash", "env": own}
        ran = [subprocess.run(flags["command"], cwd=home, **shell) for home in homes]
        return max(done.returncode for done in ran)
    else:
        raise ValueError(verb)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
