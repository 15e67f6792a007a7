"""The encrypted journal: nothing of the letters in its files, older runs are read after the key was changed."""

from __future__ import annotations

from pathlib import Path

from .processes import EXAMPLES, run_to_end

SCRIPT = [str(EXAMPLES / "encrypted_journal.py")]


def test_the_letters_are_read_with_the_keys_alone(tmp_path: Path):
    code, output = run_to_end(SCRIPT, tmp_path)
    assert code == 0, output
    assert "Dear Ms Rosebud" in output
    assert "1 runs; Ms Rosebud in the files of the database: no" in output

    code, output = run_to_end([*SCRIPT, "rotate"], tmp_path)
    assert code == 0, output
    assert "2 keys" in output
    assert output.count("context {'patient': 'Ms Rosebud'}") == 2

    (tmp_path / "journal.keys").unlink()
    code, output = run_to_end(SCRIPT, tmp_path)
    assert code == 1
    assert "which is not among the keys of this EncryptedSeal" in output
