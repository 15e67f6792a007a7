"""Seed 001: "Composition", a workflow that is made of workflows."""

from __future__ import annotations

from durable_flow import Context, Event, Journal, StartEvent, StopEvent, Workflow, step


class Part(Event):
    name: str


class Done(Event):
    text: str


class Child(Workflow):
    @step
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=f"{ev.name} done")


class Composed(Workflow):
    def __init__(self, child: Child, **kwargs):
        super().__init__(**kwargs)
        self.child = child

    @step
    async def split(self, ev: StartEvent) -> list[Part]:
        return [Part(name=name) for name in ("plan", "search", "write")]

    @step
    async def part(self, ev: Part) -> Done:
        return Done(text=await self.child.run(name=ev.name))

    @step
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        done = ctx.collect_events(ev, [Done] * 3)
        return None if done is None else StopEvent(result=sorted(one.text for one in done))


async def test_workflows_are_composed_of_workflows(database):
    workflow = Composed(Child(timeout=30), timeout=30)
    assert await workflow.run(run_id="parent") == ["plan done", "search done", "write done"]
    async with Journal(database) as journal:
        runs = await journal.runs()
    assert len(runs) == 4
    # The same line again runs nothing: parent and children have ended.
    assert await workflow.run(run_id="parent") == ["plan done", "search done", "write done"]
    async with Journal(database) as journal:
        assert len(await journal.runs()) == 4
