"""The migrations are found, and a journal is created, from wherever the package was put."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from durable_flow.journal import migrate

ROOT = Path(__file__).parents[2]

# Says where package and migrations are, and proves the migrations by creating a journal with them.
PROGRAM = """
import sys
from pathlib import Path
import durable_flow
from durable_flow.journal import files, migrate
path = Path(sys.argv[1])
migrate.prepare(path)
connection = files.connect(path)
assert migrate.version_of(connection) == migrate.HEAD
assert connection.execute("SELECT count(*) FROM journal").fetchone() == (0,)
print(Path(durable_flow.__file__).parent, migrate.migrations_path(), sep="\\n")
"""


def run(*command: object, **options: object) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.update({name: str(value) for name, value in options.items()})
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=options.get("PWD"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def places(python: object, folder: Path, **options: object) -> tuple[Path, Path]:
    """Where that Python finds the package and the migrations, when it is started far from the source tree."""
    package, migrations = run(python, "-c", PROGRAM, folder / "jobs.db", PWD=folder, **options).split()
    return Path(package), Path(migrations)


def test_in_a_source_tree(tmp_path: Path) -> None:
    assert places(sys.executable, tmp_path, PYTHONPATH=ROOT) == (ROOT / "durable_flow", ROOT / "migrations")


def new_python(tmp_path: Path) -> Path:
    """A Python of its own that has the dependencies of this one, but not the package."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def install(python: Path, *what: object) -> None:
    words = ("install", "--quiet", "--no-deps", "--ignore-installed", "--no-build-isolation", "--no-index", *what)
    run(sys.executable, "-m", "pip", "--python", python, *words, PWD=python.parent)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_in_an_editable_install(tmp_path: Path) -> None:
    python = new_python(tmp_path)
    install(python, "--editable", ROOT)
    assert places(python, tmp_path) == (ROOT / "durable_flow", ROOT / "migrations")


def test_in_a_wheel(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    # Somebody else's folder of this name beside the package must not be taken for ours.
    (site / "migrations" / "versions").mkdir(parents=True)
    (site / "migrations" / "env.py").write_text("raise SystemExit('not ours')")
    assert places(sys.executable, tmp_path, PYTHONPATH=site) == (
        site / "durable_flow",
        site / "durable_flow" / "_migrations",
    )
    assert not [name for name in packed.namelist() if name.startswith(("migrations/", "tests/"))]


def test_the_command_of_an_installed_wheel_upgrades_both_kinds_of_database(
    wheel: Path, new_url: str, tmp_path: Path
) -> None:
    install(new_python(tmp_path), wheel)
    command = tmp_path / "venv" / "bin" / "durable-flow"
    assert run(command, "db", "upgrade", PWD=tmp_path, DURABLE_FLOW_DATABASE_URL=new_url) == (
        f"{new_url} has schema {migrate.HEAD}.\n"
    )
    assert migrate.version_at(new_url) == migrate.HEAD
