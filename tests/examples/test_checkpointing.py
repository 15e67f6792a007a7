"""The notebook on checkpointing as a script."""

from __future__ import annotations

from pathlib import Path

from .processes import EXAMPLES, run_to_end


def test_runs_are_checkpointed_and_run_from(tmp_path: Path):
    code, output = run_to_end([str(EXAMPLES / "checkpointing.py")], tmp_path)
    assert code == 0, output
    joke, both = "Why is chemistry funny? It is not.", "generate_joke, critique_joke"
    assert output.splitlines() == [
        f"So so: {joke}",
        "two runs:",
        f"  run 1 has checkpoints of {both}",
        f"  run 2 has checkpoints of {both}",
        f"after generate_joke: {joke}",
        "after generate_joke: Why is biology funny? It is not.",
        f"from the checkpoint: So so: {joke}",
        "the model was asked 1 time",
        "with another joke: So so: An atom walks into a bar.",
        "with checkpoints of critique_joke disabled:",
        f"  run 1 has checkpoints of {both}",
        f"  run 2 has checkpoints of {both}",
        "  run 3 has checkpoints of critique_joke",
        "  run 4 has checkpoints of critique_joke",
        "  run 5 has checkpoints of generate_joke",
        "loaded: critique_joke, of the run that went on from the first one: True",
    ]
