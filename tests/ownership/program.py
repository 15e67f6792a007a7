"""What the processes of these tests run: `python -m ownership.program LIFE`, a Life as JSON.

Logs go to its standard error; what a test waits for is printed, one line each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

from durable_flow import (
    Context,
    Event,
    HumanResponseEvent,
    Journal,
    NeedsAttentionError,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

from .processes import until

ITEMS = 6


class Life(TypedDict, total=False):
    """What a process does. `who` signs the notes; `hold` is what its step waits for, see `Relay.held`."""

    url: str
    folder: str
    who: str
    do: str
    hold: str
    runs: list[str]
    after: int
    heartbeat_seconds: float
    expiry_seconds: float


class Go(HumanResponseEvent):
    """Lets a run that has published half of its items go on."""


class Numbered(Event):
    number: int


class Half(Event):
    pass


class Relay(Workflow):
    """Notes in a file, as the outside world would see it, which process began the step and which one went on in it."""

    def __init__(self, life: Life, **kwargs: Any):
        super().__init__(timeout=None, **kwargs)
        self.life = life

    def note(self, what: str) -> None:
        add_line(Path(self.life["folder"]) / "notes.txt", f"{self.life['who']} {what}")

    @step
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.note(f"began {ctx.run_id}")
        await self.held()
        self.note(f"went on {ctx.run_id}")
        return StopEvent(result=self.life["who"])

    async def held(self) -> None:
        kind, _, seconds = self.life.get("hold", "").partition(" ")
        if kind == "sleep":
            await asyncio.sleep(float(seconds))
        elif kind == "block":
            time.sleep(float(seconds))  # noqa: ASYNC251  # this is what is tested
        elif kind == "file":
            await until((Path(self.life["folder"]) / "go").exists)


class Publisher(Workflow):
    """Publishes items, half of them before it gets a message and half after."""

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> Half:
        for number in range(1, ITEMS + 1):
            ctx.write_event_to_stream(Numbered(number=number))
            await ctx.checkpoint(f"item {number}")
        return Half()

    @step
    async def second(self, ctx: Context, ev: Half) -> StopEvent:
        await ctx.wait_for_event(Go, timeout=None)
        for number in range(ITEMS + 1, 2 * ITEMS + 1):
            ctx.write_event_to_stream(Numbered(number=number))
        return StopEvent(result="published")


class Killer(Workflow):
    """Its step kills the process as soon as the other run has completed another step, and begun the one after."""

    def __init__(self, folder: Path, **kwargs: Any):
        super().__init__(timeout=None, **kwargs)
        self.progress = folder / "progress.txt"

    @step
    async def kill(self, ctx: Context, ev: StartEvent) -> StopEvent:
        before = len(lines(self.progress))
        await until(lambda: len(lines(self.progress)) >= before + 2)
        os.kill(os.getpid(), signal.SIGKILL)
        return StopEvent()


class Fatal(Workflow):
    """Its step kills the process at once."""

    @step
    async def kill(self, ev: StartEvent) -> StopEvent:
        os.kill(os.getpid(), signal.SIGKILL)
        return StopEvent()


class Lap(Event):
    number: int


class Healthy(Workflow):
    """Makes one step after another, and is only ever stopped by what kills its process."""

    def __init__(self, folder: Path, **kwargs: Any):
        super().__init__(timeout=None, **kwargs)
        self.folder = folder

    @step
    async def begin(self, ev: StartEvent) -> Lap:
        return Lap(number=1)

    @step
    async def lap(self, ev: Lap) -> Lap | StopEvent:
        if (self.folder / "go").exists():
            return StopEvent(result="well")
        add_line(self.folder / "progress.txt", str(ev.number))
        await asyncio.sleep(0.02)
        return Lap(number=ev.number + 1)


def add_line(path: Path, line: str) -> None:
    with open(path, "a") as file:
        file.write(f"{line}\n")


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def say(*words: object) -> None:
    print(*words, flush=True)


def journal_of(life: Life) -> Journal:
    return Journal(
        life["url"],
        heartbeat_seconds=life.get("heartbeat_seconds", 5.0),
        expiry_seconds=life.get("expiry_seconds", 30.0),
    )


async def run(life: Life) -> None:
    """Run or attach to the runs, all at once, when a line comes in; say their results."""
    journal = journal_of(life)
    async with journal:
        flow = Relay(life, journal=journal)
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        handlers = [flow.run(run_id=run_id) for run_id in life["runs"]]
        say(json.dumps(await asyncio.gather(*handlers)))


async def recover(life: Life) -> None:
    journal = journal_of(life)
    async with journal:
        handlers = await Relay(life, journal=journal).recover()
        say(json.dumps(sorted(handler.run_id for handler in handlers)))
        await asyncio.gather(*handlers)


async def publish(life: Life) -> None:
    say(await Publisher(timeout=None, journal=life["url"]).run(run_id=life["runs"][0]))


async def read(life: Life) -> None:
    """Say position and number of each item of the journal's stream."""
    async with Journal(life["url"]) as journal:
        async for item in journal.stream(life["runs"][0], after=life.get("after", 0)):
            if isinstance(item.event, Numbered):
                say(item.position, item.event.number)
    say("end")


async def follow(life: Life) -> None:
    """As `read`, by the handler of a run that another process owns."""
    handler = Publisher(timeout=None, journal=life["url"]).run(run_id=life["runs"][0])
    async for event in handler.stream_events(after=life.get("after", 0)):
        if isinstance(event, Numbered):
            say(handler.stream_position, event.number)
    say("end")


async def crash(life: Life) -> None:
    """Take up the run that kills this process and one that does no harm, and go on with that one."""
    folder = Path(life["folder"])
    killer, healthy = Killer(folder, journal=life["url"]), Healthy(folder, journal=life["url"])
    bad, good = killer.run(run_id="bad"), healthy.run(run_id="good")
    with contextlib.suppress(NeedsAttentionError):
        await bad
    say("alive")
    say(await good)


async def beside(life: Life) -> None:
    """Take up the run that kills this process at once, and those that record nothing until they end."""
    journal = journal_of(life)
    async with journal:
        flow = Relay({**life, "hold": "sleep 0.2"}, journal=journal)
        handlers = [flow.run(run_id=run_id) for run_id in life["runs"]]
        bad = Fatal(timeout=None, journal=journal).run(run_id="bad")
        results = asyncio.gather(*handlers)
        with contextlib.suppress(NeedsAttentionError):
            await bad
        say(json.dumps(await results))


class Asker(Workflow):
    """Waits for a person."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        await ctx.wait_for_event(Go, timeout=None)
        return StopEvent(result="answered")


class Parent(Workflow):
    """Waits for a run that waits for a person."""

    def __init__(self, child: Workflow, **kwargs: Any):
        super().__init__(**kwargs)
        self.child = child

    @step
    async def go(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await self.child.run())


async def waiting(life: Life) -> None:
    """Take up runs that only wait; say when they do, and then what they came to."""
    async with journal_of(life) as journal:
        asker = Asker(journal=journal)
        handlers = [asker.run(run_id="asks"), Parent(asker, journal=journal).run(run_id="parent")]
        engine = asker._durable_engine()

        def rests() -> bool:
            runs = [run for run in engine.runs.values() if run.executions and run.only_waits() and run.is_quiet]
            return len(runs) == len(handlers) + 1

        await until(rests)
        say("waits")
        say(json.dumps(await asyncio.gather(*handlers)))


def loops(life: Life) -> None:
    """Leave a run behind in a loop that is closed without a word, and go on with it in another one."""
    loop = asyncio.new_event_loop()
    held: Life = {**life, "hold": "file"}

    async def leave() -> None:
        handler = Relay(held, journal=journal_of(life)).run(run_id="r")
        await until(lambda: lines(Path(life["folder"]) / "notes.txt"))
        assert not handler.is_done()

    loop.run_until_complete(leave())
    loop.close()
    began = time.monotonic()

    async def go_on() -> Any:
        return await Relay(life, journal=journal_of(life)).run(run_id="r")

    say(asyncio.run(go_on()), time.monotonic() - began)


async def fork(life: Life) -> None:
    """Fork while a run waits in the middle; the child does one of its own, then the parent goes on."""
    journal = journal_of(life)
    async with journal:
        handler = Relay({**life, "hold": "file"}, journal=journal).run(run_id="parent")
        await until(lambda: lines(Path(life["folder"]) / "notes.txt"))
        pid = os.fork()
        if pid == 0:
            in_child(life, journal)
        code = os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1])
        (Path(life["folder"]) / "go").touch()
        say(code, await handler)
        # The parent's own connections are as they were.
        say(len(await journal.runs()), await Relay({**life, "hold": ""}, journal=journal).run(run_id="again"))


def in_child(life: Life, inherited: Journal) -> None:
    code = 1
    try:

        async def use() -> Any:
            async with Journal(life["url"]) as journal:
                assert len(await journal.runs()) == 1
                return await Relay({**life, "who": "child", "hold": ""}, journal=journal).run(run_id="child")

        # The journal that was open before the fork opens anew as well.
        async def use_inherited() -> int:
            async with inherited:
                return len(await inherited.runs())

        if asyncio.run(use()) == "child" and asyncio.run(use_inherited()) == 2:
            code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    life: Life = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO)
    do = globals()[life["do"]]
    result = do(life)
    if asyncio.iscoroutine(result):
        asyncio.run(result)


if __name__ == "__main__":
    main()
