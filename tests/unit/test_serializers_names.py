"""Names of classes in stored data: a script's classes are those of the module that it is when imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

JOBS = """
from __future__ import annotations
import dataclasses, enum, sys
from typing import ClassVar
from pydantic import BaseModel
from durable_flow.events import Event
from durable_flow.serializers import JsonSerializer

class Colour(enum.Enum):
    RED = 1

@dataclasses.dataclass
class Point:
    x: int

class Shop:
    class Item(BaseModel):
        point: Point
        colour: Colour = Colour.RED

class SampleWork(Event):
    item: Shop.Item

VALUE = SampleWork(item=Shop.Item(point=Point(1)))

if __name__ == "__main__":
    if sys.argv[1:] == ["read"]:
        assert JsonSerializer().deserialize(sys.stdin.buffer.read()) == VALUE
    else:
        sys.stdout.buffer.write(JsonSerializer().serialize(VALUE))
"""

READ_AS_MODULE = (
    "import sys, {0} as jobs; from durable_flow.serializers import JsonSerializer\n"
    "value = JsonSerializer().deserialize(sys.stdin.buffer.read()); assert value == jobs.VALUE, value"
)
WRITE_AS_MODULE = (
    "import sys, {0} as jobs; from durable_flow.serializers import JsonSerializer\n"
    "sys.stdout.buffer.write(JsonSerializer().serialize(jobs.VALUE))"
)


def run(folder: Path, *arguments: str, given: bytes = b"") -> bytes:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, input=given, capture_output=True, check=False, env={"PYTHONPATH": f"{root}:{folder}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "jobs.py").write_text(JOBS)
    return tmp_path


@pytest.mark.parametrize(("script", "module"), [(["jobs.py"], "jobs"), (["-m", "shop.jobs"], "shop.jobs")])
def test_a_script_and_a_program_that_imports_it_read_each_others_data(folder: Path, script: list[str], module: str):
    written = run(folder, *script)
    assert f'"{module}:Shop.Item"'.encode() in written
    assert b"__main__" not in written
    run(folder, *script, "read", given=written)
    run(folder, "-c", READ_AS_MODULE.format(module), given=written)
    assert run(folder, "-c", WRITE_AS_MODULE.format(module)) == written


def test_a_class_that_is_loaded_twice_is_refused_rather_than_confused(folder: Path):
    program = JOBS.partition("if __name__")[0] + (
        f"sys.path.insert(0, {str(folder)!r})\n"
        "import jobs\n"
        "from durable_flow.errors import SerializationError\n"
        "assert JsonSerializer().deserialize(JsonSerializer().serialize(Point(1))) == Point(1)\n"
        "try: JsonSerializer().serialize(jobs.Point(1))\n"
        "except SerializationError as error: print(error)\n"
    )
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "jobs.py").write_text(program)
    said = run(folder, "elsewhere/jobs.py")
    assert b"value: class jobs:Point is no longer what its module has under this name" in said
