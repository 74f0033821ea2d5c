"""The job scripts in examples/slurm: bash accepts them, their commands exist, and they run with stand-ins for SLURM."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
import typer.main

from mixtura.cli.app import build

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples" / "slurm").glob("*.sh"))

STAND_INS = {
    "python": 'printf "%s %s/%s %s\\n" "$*" "${RANK:-}" "${WORLD_SIZE:-}" "${LOCAL_RANK:-}" >> "$SAID"\neval "$THEN"\n',
    "torchrun": 'printf "%s\\n" "$*" >> "$SAID"\neval "$THEN"\n',
    "scontrol": (
        'if [ "$1" = show ]; then printf "first\\n"; sleep 0.02; printf "second\\n"\n'
        'else printf "%s\\n" "$*" >> "$SAID"; fi\n'
    ),
    "srun": ('while [[ $1 == -* ]]; do shift; done\nexport SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_PROCID=1\nexec "$@"\n'),
}
WAITING = "trap 'echo committed >> $SAID; exit 143' TERM; touch $READY; while :; do sleep 0.05; done"


def test_there_are_two():
    assert [script.name for script in SCRIPTS] == ["one-node.sh", "several-nodes.sh"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_its_commands_exist(script):
    """Bash reads it, the options of mixtura are there, and SLURM is told to warn, to requeue and to append."""
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text().replace("\\\n", " ")
    found = re.findall(r"-m mixtura (.*?)[&']", text)
    group, lines = typer.main.get_command(build()), [shlex.split(line) for line in found]
    assert lines
    for name, *words in lines:
        command = group.get_command(None, name)
        command.make_context(name, words, resilient_parsing=False)
    for said in ("--signal=B:TERM@120", "--requeue", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        assert said in text


@pytest.fixture
def job(tmp_path):
    """Begin a script with stand-ins; ``then`` is what training does."""
    for name, lines in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{lines}")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one photo.png").write_bytes(b"")
    own = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": tmp_path / "said", "READY": tmp_path / "ready",
        "DATA": tmp_path / "photos", "OUTPUT": tmp_path / "my shop", "SLURM_TMPDIR": tmp_path / "node",
        "SLURM_GPUS_ON_NODE": "2", "SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_ID": "17", "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "first,second",
    }  # fmt: skip

    def begin(script, then, lacks=()):
        given = {name: str(value) for name, value in own.items() if name not in lacks}
        environment = os.environ | given | {"THEN": then}
        return subprocess.Popen(["bash", str(script)], env=environment, cwd=tmp_path)

    return begin


@pytest.mark.parametrize("code", [0, 65])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_it_trains_on_a_copy_of_the_photos(job, tmp_path, script, code):
    """It ends with the exit code of the training, so a run that has failed is not queued again."""
    assert job(script, f"exit {code}").wait(60) == code
    assert (tmp_path / "node" / "photos" / "one photo.png").is_file()
    said = (tmp_path / "said").read_text()
    assert f"-m mixtura train {tmp_path}/node/photos -o {tmp_path}/my shop --trainable all" in said
    assert "--nproc-per-node 2 " in said if script.name == "one-node.sh" else said.endswith(" 1/2 0\n")
    assert "requeue" not in said


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_it_needs_no_folder_of_the_site(job, tmp_path, script, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    assert job(script, "exit 0", {"SLURM_TMPDIR"}).wait(60) == 0
    assert f"train {tmp_path}/mixtura-17/photos -o" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_environment_is_activated(job, tmp_path, script, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text('echo activated >> "$SAID"\n')
    monkeypatch.setenv("ENVIRONMENT", str(tmp_path))
    assert job(script, "exit 0").wait(60) == 0
    assert (tmp_path / "said").read_text().startswith("activated\n")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_at_the_end_of_its_time_it_commits_and_is_queued_again(job, tmp_path, script):
    running = job(script, WAITING)
    while not (tmp_path / "ready").exists():
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0
    assert (tmp_path / "said").read_text().splitlines()[-2:] == ["committed", "requeue 17"]
