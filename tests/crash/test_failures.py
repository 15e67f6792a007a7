"""Killed in each retry delay and in the handler, a step fails as often, and is handled once, as without a kill."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path

from .failing import ATTEMPTS, SECONDS
from .processes import Home, read_until

FAILING = [str(Path(__file__).with_name("failing.py"))]


def killed_at(home: Home, line: str, **env: str) -> None:
    with home.running(FAILING, **env) as process:
        read_until(process, line)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    home.database.come_to_rest()


def test_attempts_times_and_exceptions_survive_sigkill(home: Home):
    for attempt in range(1, ATTEMPTS):
        killed_at(home, f"failed {attempt}")
    killed_at(home, "handling", FAILING_HOLD="yes")

    code, output, errors = home.run_to_end(FAILING)

    assert code == 0, errors
    assert f"result ['db refused', {ATTEMPTS}, {ATTEMPTS}]" in output.splitlines()
    assert (home.folder / "ran.txt").read_text().splitlines() == [
        "fetch 0, after NoneType {}",
        "fetch 1, after Refused {'host': 'db', 'attempt': 1}",
        "fetch 2, after Refused {'host': 'db', 'attempt': 2}",
        "rescue",
        "rescue",
    ]
    rows = home.database.rows("SELECT at, data FROM journal WHERE kind = 'StepFailed' ORDER BY seq")
    failures = [(at, json.loads(data)) for at, data in rows]
    assert [data.get("attempt", 1) for _, data in failures] == list(range(1, ATTEMPTS + 1))
    assert len({data["began_at"] for _, data in failures}) == 1
    for (at, data), (next_at, _) in itertools.pairwise(failures):
        assert at + SECONDS * 900_000 < data["retry_at"] <= next_at
    assert [data.get("handler") for _, data in failures] == [None, None, "rescue"]
