"""The disk is full: in the middle of several runs, for a while, and for longer than anybody waits."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import durable_flow

from .disk_program import RUNS, STEPS

TESTS = Path(__file__).resolve().parents[1]
PRODUCT = Path(durable_flow.__file__).resolve().parents[1]
# Room for what the runs write, twice: in the write-ahead log and in the file.
BYTES = 64 << 20


def result_of(folder: Path, kind: str, seconds: float, prefix: Sequence[str] = ()) -> dict[str, Any]:
    """Run the program to its end and return what it prints."""
    process = subprocess.run(
        [*prefix, sys.executable, "-m", "faults.disk_program", str(folder), kind, str(seconds)], check=False,
        capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(PRODUCT)])},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    result: dict[str, Any] = json.loads(process.stdout)
    return result


@pytest.fixture(scope="module")
def small_disk() -> Sequence[str]:
    """A command that runs another one where the folder `$DISK` is a small file system of its own."""
    mount = f'mount -t tmpfs -o size={BYTES} tmpfs "$0" && exec "$@"'
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    tried = subprocess.run([*unshare, "sh", "-c", mount, "/tmp", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        what = f"a full disk needs a file system that a test can mount: `{shlex.join(unshare)}` says {tried.stderr!r}"
        warnings.warn(what, stacklevel=1)
        pytest.skip(what)
    return [*unshare, "sh", "-c", mount]


@pytest.fixture(params=["limit", "filler"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Run the program with a disk that is full for a while, of each kind; with its patience in seconds."""
    if request.param == "limit":
        return lambda seconds: result_of(tmp_path, "limit", seconds)
    prefix = [*request.getfixturevalue("small_disk"), str(tmp_path)]
    return lambda seconds: result_of(tmp_path, "filler", seconds, prefix)


def check(result: dict[str, Any]) -> None:
    """Nothing that was told to be durable is lost, no step is recorded twice, and every run has come to its end."""
    for run_id in RUNS:
        told = result["told"][run_id]
        assert told == list(range(len(told)))
        assert len(told) <= result["recorded"][run_id] < STEPS
        assert result["results"][run_id] == list(range(STEPS))
        assert result["completed"][run_id] == STEPS


def test_runs_go_on_when_there_is_room_again_in_time(full: Any) -> None:
    result = full(30)
    assert result["errors"] == []
    check(result)


def test_runs_stop_with_a_remedy_on_a_full_disk_and_go_on_when_there_is_room_again(
    full: Any, request: pytest.FixtureRequest
) -> None:
    result = full(0.5)
    # Beyond its limit a file cannot be written, which SQLite does not tell from a bad disk.
    said = {"limit": "the disk reports an error. Look into", "filler": "the disk is full. Make room, then resume"}
    wanted = f"jobs.db: {said[request.node.callspec.params['full']]}"
    assert len(result["errors"]) == len(RUNS)
    assert [error for error in result["errors"] if wanted not in error] == []
    check(result)
