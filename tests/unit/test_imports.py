"""Imports point down only: the floors of the house, who may see what, and what `import durable_flow` brings along."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import durable_flow

PACKAGE = Path(durable_flow.__file__).parent

# Packages stand for everything in them.
FLOORS = {
    0: {"events", "errors", "records", "state", "incoming", "commands", "observers", "logs", "upcasting", "version"},
    1: {
        "fold",
        "fold_joins",
        "decide",
        "due",
        "joins",
        "graph",
        "levels",
        "recovery",
        "retry_policy",
        "retries",
        "shape",
        "snapshot",
        "branching",
    },
    2: {"serializers", "journal"},
    3: {"engine"},
    4: {
        *("utils", "representation", "context_serializers", "problems", "checkpointer", "going_back"),
        *("workflow", "decorators", "context", "handler", "checkpoints", "resource", "service", "collect", "drawing"),
        *("program", "settings", "start_event", "signatures", "fan_in", "steps", "types", "injection"),
        "",  # durable_flow itself: the public names
    },
    5: {"cli", "web", "testing", "integrations"},
}
# What the wheel carries beside the code: migrations run by alembic, the example that the demo runs.
NOT_CODE = {"_migrations", "_examples"}
IMPURE = {
    *(
        "time",
        "datetime",
        "random",
        "secrets",
        "uuid",
        "os",
        "sys",
        "io",
        "pathlib",
        "socket",
        "subprocess",
        "threading",
    ),
    *("asyncio", "concurrent", "logging", "sqlite3", "sqlalchemy", "alembic", "aiosqlite", "asyncpg"),
}

# What turns data into text, and nothing else.
ENCODINGS = {"json", "base64", "binascii"}


# The retry policies draw jitter from generators that are seeded with data (a test below holds them to it), and a field
# of an event is a time.
SEEDED_OR_TYPES = {("retry_policy", "random"), ("events", "datetime")}


class Import(NamedTuple):
    """An import of `target` (a dotted name) in `module`; `for_types` alone if it stands under TYPE_CHECKING."""

    module: str
    line: int
    target: str
    for_types: bool

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def modules() -> dict[str, Path]:
    """Return every module of the package by its name without the package's: "" is durable_flow itself."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in NOT_CODE:
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def floor_of(module: str) -> int | None:
    room = module.partition(".")[0]
    return next((floor for floor, rooms in FLOORS.items() if room in rooms), None)


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """Yield what a module imports, anywhere in it, with relative names made absolute."""
    tree = ast.parse(path.read_text("utf-8"))
    package = ["durable_flow", *module.split(".")] if module else ["durable_flow"]
    if path.name != "__init__.py":
        package.pop()
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [submodule_or_self(base, alias.name) for alias in node.names]
        else:
            continue
        for name in sorted(set(names)):
            yield Import(module, node.lineno, name, id(node) in for_types)


def submodule_or_self(base: str, name: str) -> str:
    """`from base import name` imports the module base.name if there is one, else something out of base."""
    full = f"{base}.{name}"
    return full if full.removeprefix("durable_flow.") in MODULES and base.startswith("durable_flow") else base


@cache
def imports() -> list[Import]:
    """Every import of the package: parsed once a test asks, as each process of pytest collects this file."""
    return [found for module, path in MODULES.items() for found in imports_of(module, path)]


@cache
def inside() -> list[Import]:
    """Imports of the package's own modules, by their names in it."""
    return [
        found._replace(target=found.target.removeprefix("durable_flow").removeprefix("."))
        for found in imports()
        if found.target.partition(".")[0] == "durable_flow"
    ]


@cache
def outside() -> list[Import]:
    return [found for found in imports() if found.target.partition(".")[0] != "durable_flow"]


def told(imports) -> list[str]:
    return [str(found) for found in imports]


def test_the_imports_of_the_package_are_found():
    assert Import("decide", 0, "state", False) in [found._replace(line=0) for found in inside()]
    assert Import("journal.rows", 0, "records", False) in [found._replace(line=0) for found in inside()]
    assert Import("engine.program", 0, "serializers.codec", True) in [found._replace(line=0) for found in inside()]
    assert Import("cli.demo", 0, "", False) in [found._replace(line=0) for found in inside()]
    assert Import("journal.sqlite", 0, "sqlite3", False) in [found._replace(line=0) for found in outside()]


def test_every_module_stands_on_a_floor():
    assert [module for module in MODULES if floor_of(module) is None] == []


def test_every_import_inside_the_package_names_a_module():
    assert told(found for found in inside() if found.target not in MODULES) == []


def test_imports_point_down():
    upward = [f for f in inside() if not f.for_types and (floor_of(f.target) or 0) > (floor_of(f.module) or 0)]
    assert told(upward) == []


def test_the_public_names_are_imported_by_the_edges_alone():
    through_the_front_door = [found for found in inside() if found.target == "" and floor_of(found.module) != 5]
    assert told(through_the_front_door) == []


def test_nothing_imports_the_edges():
    edges = FLOORS[5]
    rooms = {(found.module.partition(".")[0], found.target.partition(".")[0], str(found)) for found in inside()}
    assert [text for room, target, text in rooms if target in edges and room != target] == []


@pytest.mark.parametrize("floor", [0, 1])
def test_data_and_decisions_know_no_clock_no_chance_and_no_world(floor):
    impure = [
        found
        for found in outside()
        if floor_of(found.module) == floor
        and found.target.partition(".")[0] in IMPURE
        and not found.for_types
        and (found.module.partition(".")[0], found.target) not in SEEDED_OR_TYPES
    ]
    assert told(impure) == []


def test_retry_policies_use_random_numbers_from_a_seed_alone():
    paths = [path for module, path in MODULES.items() if module.partition(".")[0] == "retry_policy"]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    uses = [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random"]
    seeded = [
        node.func
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "random.Random" and len(node.args) == 1
    ]
    assert uses
    assert uses == seeded


@pytest.mark.parametrize("floor", [0, 1])
def test_data_and_decisions_are_not_async_and_open_no_files(floor):
    found = []
    for module, path in MODULES.items():
        if floor_of(module) == floor:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                is_async = isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
                if is_async or (isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "print", "input")):
                    found.append(f"{module}:{node.lineno}")
    assert found == []


def test_the_fold_and_the_decisions_need_no_user_classes():
    """Runs are folded and shown without the user's code: not even the base classes of events are needed."""
    reached, todo = set(), {"fold", "decide", "due", "joins"}
    while todo:
        module = todo.pop()
        reached.add(module)
        todo |= {f.target for f in inside() if f.module == module} - reached
    decisions = {"fold", "fold_joins", "decide", "due", "joins", "snapshot"}
    assert reached == decisions | {"records", "state", "incoming", "commands", "errors"}
    libraries = {f.target.partition(".")[0] for f in outside() if f.module in reached}
    assert libraries <= {
        "__future__",
        "typing",
        "types",
        "collections",
        "dataclasses",
        "functools",
        "operator",
        *ENCODINGS,
    }


def test_the_storage_never_decides():
    deciding = {"decide", "due", "incoming", "commands"}
    assert told(f for f in inside() if floor_of(f.module) == 2 and f.target in deciding) == []


def test_the_serializers_know_nothing_of_the_journal():
    assert told(f for f in inside() if f.module.startswith("serializers") and f.target.startswith("journal")) == []


def test_there_is_sql_in_the_journal_alone():
    databases = {"sqlalchemy", "sqlite3", "aiosqlite", "asyncpg", "alembic"}
    elsewhere = [
        f for f in outside() if f.target.partition(".")[0] in databases and f.module.partition(".")[0] != "journal"
    ]
    assert told(elsewhere) == []
    dialects = ("journal.sql", "journal.sqlite", "journal.postgres", "journal.tables", "journal.writer", "journal.rows")
    assert told(f for f in inside() if f.target.startswith(dialects) and not f.module.startswith("journal.")) == []


def test_only_the_unsafe_serializers_import_pickle():
    unsafe = {"pickle", "cPickle", "jsonpickle", "dill", "cloudpickle", "marshal", "shelve"}
    users = {f.module for f in outside() if f.target.partition(".")[0] in unsafe}
    assert users <= {"serializers.pickle", "serializers.jsonpickle"}


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after this code."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])}
    script = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return set(shown.stdout.split())


def test_importing_the_package_brings_no_unsafe_serializer_no_migrations_no_sql_and_no_driver():
    loaded = loaded_by("import durable_flow")
    assert "durable_flow.workflow" in loaded
    unwanted = {"durable_flow.serializers.pickle", "durable_flow.serializers.jsonpickle"}
    unwanted |= {"durable_flow.serializers.encryption", "cryptography"}
    unwanted |= {"jsonpickle", "alembic", "asyncpg", "aiosqlite", "sqlalchemy"}
    assert loaded & unwanted == set()
    assert {name for name in loaded if name.startswith(("durable_flow.cli", "durable_flow.web"))} == set()


def test_importing_the_package_brings_nothing_that_few_programs_use_and_nothing_that_runs_workflows():
    loaded = loaded_by("from durable_flow import Context, Event, RetryPolicy, Workflow, step")
    unwanted = {"tenacity", "jsonpatch", "jsonpointer", "durable_flow.retry_policy"}
    unwanted |= {"durable_flow.checkpointer", "durable_flow.going_back", "durable_flow.engine.replaying.replay"}
    journal = ("info", "listing", "forking", "editing", "archives", "archive_files", "retention", "memory")
    unwanted |= {f"durable_flow.journal.{name}" for name in journal}
    unwanted |= {f"durable_flow.engine.{name}" for name in ("engine", "run", "attempt", "execution")}
    assert loaded & unwanted == set()


def test_every_public_name_is_to_be_had_and_is_listed():
    import durable_flow

    names = {*durable_flow.__all__, *durable_flow._ON_DEMAND}
    assert {"Journal", "RunInfo", "retry_any", "WorkflowCheckpointer", "StepConfig"} <= names
    for name in names:
        assert getattr(durable_flow, name) is not None
    assert names <= set(dir(durable_flow))


@pytest.mark.parametrize("module", ["checkpointer", "checkpoints", "retry_policy"])
def test_a_module_of_the_package_is_an_attribute_of_it_before_it_is_imported(module):
    assert f"durable_flow.{module}" in loaded_by(f"import durable_flow\ndurable_flow.{module}")


def test_a_name_that_is_not_there_is_no_attribute():
    import durable_flow

    with pytest.raises(AttributeError, match="'durable_flow' has no attribute 'Worklow'"):
        _ = durable_flow.Worklow


def test_asking_for_the_pickle_serializer_imports_it():
    loaded = loaded_by("from durable_flow.serializers import PickleSerializer")
    assert "durable_flow.serializers.pickle" in loaded
