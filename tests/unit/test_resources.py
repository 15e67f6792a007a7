"""Resources: how they are made, kept and shared, without a run."""

from __future__ import annotations

import asyncio
import functools
import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from durable_flow import (
    Resource,
    ResourceConfig,
    ResourceDefinition,
    ResourceManager,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    step,
)
from durable_flow.steps import step_table


class Made:
    """Something that is told from others by identity."""

    def __init__(self, *parts: Any):
        self.parts = parts


def counted(result: Any = None) -> Any:
    """Return a factory that makes a new object, and the list of its calls."""
    calls: list[Made] = []

    def make() -> Made:
        calls.append(Made(result))
        return calls[-1]

    return make, calls


# -- Keeping -----------------------------------------------------------------------------------------------------------


async def test_a_resource_is_made_once_for_a_manager():
    make, calls = counted()
    manager = ResourceManager()
    assert await manager.get(Resource(make)) is await manager.get(Resource(make))
    assert len(calls) == 1
    assert await ResourceManager().get(Resource(make)) is calls[1]


async def test_without_cache_it_is_made_for_each_resolution_and_shared_within_it():
    make, calls = counted()

    def pair(left: Annotated[Made, Resource(make, cache=False)], right: Annotated[Made, Resource(make, cache=False)]):
        return Made(left, right)

    manager = ResourceManager()
    first, second = await manager.get(Resource(pair, cache=False)), await manager.get(Resource(pair, cache=False))
    assert first.parts[0] is first.parts[1] is calls[0]
    assert second.parts[0] is second.parts[1] is calls[1]
    assert manager.get_all() == {}


@pytest.mark.parametrize("kept_first", [True, False])
async def test_a_factory_is_one_object_within_a_resolution_and_the_kept_one_if_any_wants_that(kept_first: bool):
    make, calls = counted()

    def keeps(kept: Annotated[Made, Resource(make)]):
        return kept

    def both(fresh: Annotated[Made, Resource(make, cache=False)], kept: Annotated[Made, Resource(keeps, cache=False)]):
        return Made(fresh, kept)

    def swapped(
        kept: Annotated[Made, Resource(keeps, cache=False)], fresh: Annotated[Made, Resource(make, cache=False)]
    ):
        return Made(fresh, kept)

    manager = ResourceManager()
    for _ in range(2):
        made = await manager.get(Resource(swapped if kept_first else both, cache=False))
        assert made.parts[0] is made.parts[1] is calls[0]
    assert await manager.get(Resource(make)) is calls[0]
    # Where nobody wants the kept one, it is made as ever.
    assert await manager.get(Resource(make, cache=False)) is calls[1]
    assert await manager.get(Resource(make)) is calls[0]


async def test_factories_are_plain_or_async_functions_classes_and_partials():
    async def later() -> str:
        await asyncio.sleep(0)
        return "later"

    manager = ResourceManager()
    assert await manager.get(Resource(lambda: 1)) == 1
    assert await manager.get(Resource(later)) == "later"
    assert await manager.get(Resource(lambda: later())) == "later"
    assert isinstance(await manager.get(Resource(Made)), Made)
    assert (await manager.get(Resource(functools.partial(Made, 3)))).parts == (3,)


async def test_what_two_resolutions_need_at_once_is_made_once():
    begun, go_on, calls = asyncio.Event(), asyncio.Event(), []

    async def slow() -> Made:
        calls.append(1)
        begun.set()
        await go_on.wait()
        return Made()

    manager = ResourceManager()
    both = [asyncio.create_task(manager.get(Resource(slow))) for _ in range(2)]
    await begun.wait()
    go_on.set()
    one, other = await asyncio.gather(*both)
    assert one is other
    assert calls == [1]


async def test_whoever_waits_makes_it_when_the_one_who_began_is_cancelled():
    begun: asyncio.Queue[int] = asyncio.Queue()
    go_on = asyncio.Event()

    async def slow() -> str:
        begun.put_nowait(1)
        await go_on.wait()
        return "made"

    manager = ResourceManager()
    one, other = (asyncio.create_task(manager.get(Resource(slow))) for _ in range(2))
    await begun.get()
    one.cancel()
    await begun.get()
    go_on.set()
    assert await other == "made"
    assert one.cancelled()


async def test_a_failure_is_not_kept():
    answers = [OSError("no database"), "connected"]

    def connect() -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    manager = ResourceManager()
    with pytest.raises(OSError, match="no database"):
        await manager.get(Resource(connect))
    assert await manager.get(Resource(connect)) == "connected"


async def test_set_puts_another_in_its_place_by_name():
    make, calls = counted()

    def user(made: Annotated[Made, Resource(make)]) -> Made:
        return Made(made)

    manager, resource = ResourceManager(), Resource(make)
    await manager.set(resource.name, "fake")
    assert resource.name == make.__qualname__
    assert await manager.get(resource) == "fake"
    assert (await manager.get(Resource(user))).parts == ("fake",)
    assert calls == []
    assert manager.get_all()[resource.name] == "fake"


async def test_two_factories_of_one_name_are_two_resources():
    manager = ResourceManager()
    first, second = Resource(lambda: "first"), Resource(lambda: "second")
    assert first.name == second.name
    assert [await manager.get(first), await manager.get(second), await manager.get(first)] == [
        "first",
        "second",
        "first",
    ]


def test_what_is_no_function_is_refused():
    with pytest.raises(WorkflowValidationError, match=r"Resource\(3\): it takes a function"):
        Resource(3)  # type: ignore[arg-type]


# -- Dependencies ------------------------------------------------------------------------------------------------------


def base() -> Made:
    return Made("base")


async def on_base(below: Annotated[Made, Resource(base)], size: int = 3) -> Made:
    return Made(below, size)


async def test_factories_get_what_they_depend_on_and_keep_their_defaults():
    manager = ResourceManager()
    made = await manager.get(Resource(on_base))
    assert made.parts == (await manager.get(Resource(base)), 3)
    assert set(manager.get_all()) == {"base", "on_base"}


def forward(below: Annotated[Made, Resource(defined_below)]) -> Made:
    return Made(below)


def defined_below() -> str:
    return "below"


async def test_annotations_may_name_what_is_defined_further_down_or_locally():
    assert (await ResourceManager().get(Resource(forward))).parts == ("below",)

    def local() -> str:
        return "local"

    def user(it: Annotated[str, Resource(local)]) -> Made:
        return Made(it)

    assert (await ResourceManager().get(Resource(user))).parts == ("local",)


async def test_an_annotation_that_cannot_be_resolved_is_named():
    def user(it: Annotated[str, Resource(nowhere)]) -> str:  # noqa: F821
        return it

    with pytest.raises(NameError, match=r"parameter 'it' of the resource factory .*user.*nowhere.*TYPE_CHECKING"):
        await ResourceManager().get(Resource(user))


def ring_a(b: Annotated[int, Resource(ring_b)]) -> int:
    return b


def ring_b(c: Annotated[int, Resource(ring_c)]) -> int:
    return c


def ring_c(a: Annotated[int, Resource(ring_a)]) -> int:
    return a


async def test_a_cycle_is_named():
    manager = ResourceManager()
    with pytest.raises(ValueError, match="Circular resource dependency detected: ring_a -> ring_b -> ring_c -> ring_a"):
        await manager.get(Resource(ring_a))


async def test_a_cycle_that_is_cut_by_set_is_none():
    manager = ResourceManager()
    await manager.set("ring_c", 7)
    assert await manager.get(Resource(ring_a)) == 7


async def test_cycles_under_way_at_once_do_not_wait_for_each_other():
    manager = ResourceManager()
    async with asyncio.timeout(10):
        results = await asyncio.gather(
            *(manager.get(Resource(ring)) for ring in (ring_a, ring_b, ring_c)), return_exceptions=True
        )
    assert [type(result) for result in results] == [ValueError] * 3


# -- Configuration files -----------------------------------------------------------------------------------------------


class Database(BaseModel):
    host: str
    port: int = 5432


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    content = {
        "databases": {"main": {"host": "db1"}, "odd": {"port": "hunter2"}},
        "list": [{"host": "x"}],
        "host": "top",
    }
    Path("app.json").write_text(json.dumps(content))
    return "app.json"


async def get(resource: ResourceConfig, cls: Any = Database) -> Any:
    return await ResourceManager().get(resource.typed(cls))


async def test_a_file_or_a_part_of_it_is_read_as_the_annotated_model(config: str):
    assert await get(ResourceConfig(config, "databases.main")) == Database(host="db1")
    assert (await get(ResourceConfig(config))).host == "top"


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


async def test_a_file_is_read_once_for_a_manager_and_model(config: str):
    class Host(BaseModel):
        host: str

    manager, resource = ResourceManager(), ResourceConfig(config, "databases.main")
    first = await manager.get(resource.typed(Database))
    write(config, "{}")
    assert await manager.get(ResourceConfig(config, "databases.main", "label").typed(Database)) is first
    assert manager.get_all() == {"app.json.databases.main": first}
    with pytest.raises(ValueError, match="Expected dictionary"):
        await manager.get(resource.typed(Host))


async def test_a_factory_may_take_what_a_file_holds(config: str):
    def connect(database: Annotated[Database, ResourceConfig(config, "databases.main")]) -> str:
        return f"{database.host}:{database.port}"

    assert await ResourceManager().get(Resource(connect)) == "db1:5432"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (
            "databases.none",
            "Expected dictionary for configuration from .*app.json at path databases.none, got.*NoneType",
        ),
        ("list", "at path list, got.*list"),
        ("databases.main.host", "got.*str"),
        ("databases.odd", "does not fit Database: host: Field required"),
    ],
)
async def test_a_part_that_does_not_fit_is_named_without_its_values(config: str, path: str, says: str):
    with pytest.raises(ValueError, match=says) as raised:
        await get(ResourceConfig(config, path))
    assert "hunter2" not in str(raised.value)


async def test_files_that_cannot_be_read(config: str):
    with pytest.raises(FileNotFoundError, match=r"No such file: none\.json"):
        await get(ResourceConfig("none.json"))
    write("broken.json", "{")
    with pytest.raises(ValueError, match=r"broken\.json is no JSON"):
        await get(ResourceConfig("broken.json"))
    with pytest.raises(ValueError, match="Only JSON files"):
        ResourceConfig("app.yaml")


def test_a_configuration_of_another_type_than_a_model_is_refused_by_step():
    with pytest.raises(WorkflowValidationError, match=r"'.*begin' has a parameter 'it' .*subclass of BaseModel"):

        class Flow(Workflow):
            @step
            async def begin(self, ev: StartEvent, it: Annotated[dict, ResourceConfig("a.json")]) -> StopEvent:
                return StopEvent()


# -- Validation --------------------------------------------------------------------------------------------------------


def broken() -> int:
    raise OSError("no database")


async def works() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


class Configured(Workflow):
    @step
    async def begin(
        self,
        ev: StartEvent,
        main: Annotated[Database, ResourceConfig("app.json", "databases.main", "Main", "where it is")],
        odd: Annotated[Database, ResourceConfig("app.json", "databases.odd")],
        none: Annotated[Database, ResourceConfig("none.json")],
    ) -> StopEvent:
        return StopEvent()


class Broken(Workflow):
    @step
    async def begin(
        self,
        ev: StartEvent,
        one: Annotated[int, Resource(broken)],
        two: Annotated[Any, Resource(works)],
        three: Annotated[int, Resource(ring_a)],
    ) -> StopEvent:
        return StopEvent()


def test_resources_stand_in_the_configuration_of_the_step():
    [main, *_] = step_table(Configured).steps["begin"].resources
    assert isinstance(main, ResourceDefinition)
    assert (main.name, main.type_annotation) == ("main", Database)
    assert isinstance(main.resource, ResourceConfig)
    assert (main.resource.label, main.resource.description) == ("Main", "where it is")


def test_validation_reads_all_files_and_names_what_is_wrong_with_them(config: str):
    flow = Configured()
    assert flow.validate(validate_resource_configs=False) is False
    with pytest.raises(WorkflowValidationError) as raised:
        flow.validate()
    [title, odd, none] = str(raised.value).splitlines()
    assert title == "Resource config validation failed:"
    assert odd.startswith("  - In step 'begin', parameter 'odd': ")
    assert none.startswith("  - In step 'begin', parameter 'none': No such file")
    assert Configured(disable_validation=True).validate() is False


async def test_validation_makes_resources_only_when_asked_and_forgets_them():
    manager = ResourceManager()
    flow = Broken(resource_manager=manager)
    assert flow.validate() is False
    with pytest.raises(WorkflowValidationError) as raised:
        flow.validate(validate_resources=True)
    assert str(raised.value).splitlines() == [
        "Resource validation failed:",
        "  - In step 'begin', parameter 'one': no database",
        "  - In step 'begin', parameter 'three': Circular resource dependency detected: ring_a -> ring_b -> ring_c -> "
        "ring_a. One of them must do without the other.",
    ]
    assert manager.get_all() == {}
    await manager.set("broken", 1)
    await manager.set("ring_b", 1)
    assert flow.validate(validate_resources=True) is False
