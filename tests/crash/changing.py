"""A process of one of three generations of a program, which goes on with a run and may be killed.

CHANGING_GENERATION is 1 to 3: classes are renamed, fields come, go and change. CHANGING_RUN is the run, CHANGING_KILL
"number point": a commit and a point in it. Snapshots are taken after every few records, whatever is in flight, and
short values are spliced.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from typing import Any, ClassVar

from pydantic import BaseModel

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, register_alias, step, upcast
from durable_flow.engine import run as engine_run
from durable_flow.engine import snapshots

from .kills import Commits

LAPS = 5
GENERATION = int(os.environ["CHANGING_GENERATION"])

if GENERATION == 1:

    class ChangingLap(Event):
        n: int

    class ChangingNote(Event):
        text: str

    @dataclasses.dataclass
    class ChangingItem:
        number: int

    Lap, Note, Item = ChangingLap, ChangingNote, ChangingItem

elif GENERATION == 2:

    class ChangingRound(Event):
        event_aliases: ClassVar[tuple[str, ...]] = ("ChangingLap",)
        n: int
        extra: tuple[int, ...] = (1,)

    class ChangingNote(Event):  # type: ignore[no-redef]
        text: str
        language: str = "en"

    @dataclasses.dataclass
    class ChangingItem:  # type: ignore[no-redef]
        stored_version: ClassVar[int] = 2
        label: str

    @upcast(ChangingItem, from_version=1)
    def labelled(data: dict[str, Any]) -> dict[str, Any]:
        return {"label": str(data["number"])}

    Lap, Note, Item = ChangingRound, ChangingNote, ChangingItem  # type: ignore[misc,assignment]

else:

    class ChangingTurn(Event):
        event_version: ClassVar[int] = 2
        event_aliases: ClassVar[tuple[str, ...]] = ("ChangingLap", "ChangingRound")
        number: int

    class ChangingRemark(Event):
        event_aliases: ClassVar[tuple[str, ...]] = ("ChangingNote",)
        text: str

    class ChangingThing(BaseModel):
        stored_version: ClassVar[int] = 3
        name: str

    @upcast(ChangingTurn, from_version=1)
    def numbered(data: dict[str, Any]) -> dict[str, Any]:
        data["number"] = data.pop("n")
        return data

    @upcast("crash.changing:ChangingItem", from_version=1)
    def labelled(data: dict[str, Any]) -> dict[str, Any]:
        return {"label": str(data["number"])}

    @upcast(ChangingThing, from_version=2)
    def named(data: dict[str, Any]) -> dict[str, Any]:
        return {"name": data["label"]}

    register_alias(ChangingThing, "crash.changing:ChangingItem")
    Lap, Note, Item = ChangingTurn, ChangingRemark, ChangingThing  # type: ignore[misc,assignment]

NUMBER = "number" if GENERATION == 3 else "n"
FIELD = {1: "number", 2: "label", 3: "name"}[GENERATION]


def lap(n: int) -> Any:
    return Lap(**{NUMBER: n})


def item(n: int) -> Any:
    return Item(**{FIELD: n if GENERATION == 1 else str(n)})


def numbers(items: list[Any]) -> list[int]:
    return [int(getattr(each, FIELD)) for each in items]


class Changing(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Lap:
        ctx.data["items"] = []
        return lap(0)

    @step
    async def turn(self, ctx: Context, ev: Lap) -> Lap | Note:
        n = getattr(ev, NUMBER)
        ctx.data["items"].append(item(n))  # in place, and durable with the call
        called = await ctx.call("make", lambda: item(n))
        ctx.data.setdefault("nested", {"x": []})["x"].append({"called": called})
        ctx.send_event(Note(text=f"lap {n}"))
        return lap(n + 1) if n + 1 < LAPS else Note(text="over")

    @step
    async def note(self, ctx: Context, ev: Note) -> StopEvent | None:
        notes = ctx.collect_events(ev, [Note] * (LAPS + 1))
        if notes is None:
            return None
        called = [each["called"] for each in ctx.data["nested"]["x"]]
        return StopEvent(result=[numbers(ctx.data["items"]), numbers(called), sorted(note.text for note in notes)])


async def main() -> None:
    if "CHANGING_KILL" in os.environ:
        number, point = os.environ["CHANGING_KILL"].split(" ", 1)
        Commits().kill_at(int(number), point)
    print(json.dumps(await Changing(timeout=None).run(run_id=os.environ["CHANGING_RUN"])), flush=True)


if __name__ == "__main__":
    snapshots.LIVE_ROWS = 7
    snapshots.BYTES_PER_ROW = 1 << 30
    engine_run.LEAST_BYTES = 0
    asyncio.run(main())
