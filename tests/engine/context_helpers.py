"""Small workflows for the tests of the context: what their steps do is given by each test."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from pydantic import BaseModel

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, step
from durable_flow.records import StepDiverged

Body = Callable[[Any], Awaitable[Any]]
RUN = "run-1"


class Go(Event):
    name: str


class Done(Event):
    name: str
    result: Any = None


class Crew(Workflow):
    """One concurrent task for each body, by name; the result of the run is the bodies' results by name.

    `done[name]` is set once the completion of that task is durable.
    """

    def __init__(self, journal: Journal | str, /, **bodies: Body):
        super().__init__(journal=journal, timeout=60, workflow_name="Crew")
        self.bodies = bodies
        self.done = {name: asyncio.Event() for name in bodies}

    @step
    async def start(self, ev: StartEvent) -> list[Go]:
        return [Go(name=name) for name in self.bodies]

    @step(num_workers=64)
    async def work(self, ctx: Context, ev: Go) -> Done:
        return Done(name=ev.name, result=await self.bodies[ev.name](ctx))

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        self.done[ev.name].set()
        every = ctx.collect_events(ev, [Done] * len(self.bodies))
        return None if every is None else StopEvent(result={done.name: done.result for done in every})


def typed(state: type[BaseModel]) -> type[Crew]:
    """A Crew whose context has a state class."""

    class Typed(Crew):
        @step(num_workers=64)
        async def work(self, ctx: Context[state], ev: Go) -> Done:
            return Done(name=ev.name, result=await self.bodies[ev.name](ctx))

    return Typed


async def run(journal: Journal | str, /, **bodies: Body) -> Any:
    """Run the bodies as tasks of one run and return their results by name."""
    return await Crew(journal, **bodies).run(run_id=RUN)


async def run_alone(journal: Journal | str, body: Body) -> Any:
    """Run one body as a step and return its result."""
    return (await run(journal, only=body))["only"]


async def stored(journal: Journal) -> dict[str, Any]:
    """The context as it is in the journal."""
    return (await journal.state(RUN)).context


def stored_at(url: str) -> dict[str, Any]:
    """The context as it is in a file, read in an event loop of its own."""

    async def read() -> dict[str, Any]:
        async with Journal(url) as journal:
            return await stored(journal)

    return asyncio.run(read())


def divergences(url: str) -> list[StepDiverged]:
    """What re-runs came to that was not as recorded."""

    async def read() -> list[StepDiverged]:
        async with Journal(url) as journal:
            return [r.fact for r in await journal.history(RUN) if isinstance(r.fact, StepDiverged)]

    return asyncio.run(read())


def run_until(crew: Crew, reached: asyncio.Event) -> None:
    """Run in an event loop that ends, in the middle of the run, when a moment is reached."""

    async def first() -> None:
        handler = crew.run(run_id=RUN)
        await asyncio.wait_for(reached.wait(), 30)
        assert not handler.is_done()

    asyncio.run(first())


def run_to_end(crew: Crew) -> Any:
    """Take the run up in an event loop of its own and return its result."""

    async def last() -> Any:
        return await crew.run(run_id=RUN)

    return asyncio.run(last())


def forever() -> Coroutine[Any, Any, Any]:
    """Never come back, until the loop ends."""
    return asyncio.Event().wait()


async def nothing(ctx: Context) -> None:
    """Do nothing."""
