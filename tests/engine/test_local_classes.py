"""Models that are defined in a function, as tests do it, in fields of events and of the state."""

from dataclasses import dataclass
from enum import Enum

import pytest
from pydantic import BaseModel

from durable_flow import Context, Event, Journal, SerializationError, StartEvent, StopEvent, Workflow, step


async def test_fields_of_events_and_state_may_have_classes_defined_in_a_function(journal: Journal) -> None:
    class Colour(Enum):
        RED = "red"

    @dataclass
    class Point:
        x: int
        colour: Colour = Colour.RED

    class Shape(BaseModel):
        points: dict[str, Point] = {}

    class Drawn(Event):
        shape: Shape
        others: list[Shape] | None = None

    class Board(BaseModel):
        shapes: list[Shape] = []
        last: Drawn | None = None

    class Draw(Workflow):
        @step
        async def draw(self, ctx: Context[Board], ev: StartEvent) -> Drawn:
            drawn = Drawn(shape=Shape(points={"a": Point(1)}), others=[Shape()])
            await ctx.store.set("shapes", [drawn.shape])
            await ctx.store.set("last", drawn)
            return drawn

        @step
        async def show(self, ctx: Context[Board], ev: Drawn) -> StopEvent:
            board = await ctx.store.get_state()
            assert board.last == ev
            return StopEvent(result=[ev.shape.points["a"].colour is Colour.RED, board.shapes == [ev.shape]])

    flow = Draw(journal=journal)
    handler = flow.run(run_id="r")
    assert await handler == [True, True]
    again = Context.from_dict(Draw(journal=journal), handler.ctx.to_dict())
    assert await again.store.get("last") == Drawn(shape=Shape(points={"a": Point(1)}), others=[Shape()])


async def test_a_local_class_that_no_field_names_is_refused(journal: Journal) -> None:
    @dataclass
    class Loose:
        x: int = 1

    class Returns(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent(result=Loose())

    with pytest.raises(SerializationError, match=r"Loose is not found in its module.*field of an event"):
        await Returns(journal=journal).run(run_id="r")


async def test_classes_that_name_one_another_end(journal: Journal) -> None:
    class Node(BaseModel):
        below: list["Node"] = []

    class Grown(Event):
        root: Node | None = None

    class Grow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Grown:
            return Grown()

        @step
        async def end(self, ev: Grown) -> StopEvent:
            return StopEvent(result=ev.root)

    assert await Grow(journal=journal).run(run_id="r") is None
