"""An event that today's classes cannot read parks the run; repaired, it goes on."""

import asyncio
from pathlib import Path

import pytest

from durable_flow import Event, Journal, NeedsAttentionError, StartEvent, StopEvent, Workflow, step


def flow_with(fields: dict[str, object], url: str, begun: asyncio.Event | None = None) -> Workflow:
    """A workflow that hands a page from one step to the next; the page's fields are those of the day."""
    annotations = dict.fromkeys(("number", *fields), int)
    page = type("UnreadablePage", (Event,), {"__annotations__": annotations, "__module__": __name__, **fields})

    class Pages(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> page:  # type: ignore[valid-type]
            return page(number=3)

        @step
        async def write(self, ev: page) -> StopEvent:  # type: ignore[valid-type]
            if begun is not None:
                begun.set()
                await asyncio.get_running_loop().create_future()
            return StopEvent(result=ev.number)  # type: ignore[attr-defined]

    return Pages(journal=url, workflow_name="Pages")


def test_an_event_that_cannot_be_read_parks_the_run_until_the_class_is_repaired(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'pages.db'}"

    async def first() -> None:
        begun = asyncio.Event()
        flow_with({}, url, begun).run(run_id="book")
        await begun.wait()

    async def meanwhile_the_class_asks_for_more() -> str:
        required = type("UnreadablePage", (Event,), {"__annotations__": {"number": int, "words": int}})

        class Pages(Workflow):
            @step
            async def begin(self, ev: StartEvent) -> required:  # type: ignore[valid-type]
                return required(number=3, words=1)

            @step
            async def write(self, ev: required) -> StopEvent:  # type: ignore[valid-type]
                return StopEvent(result="never")

        handler = await Pages(journal=url, workflow_name="Pages").resume("book")
        with pytest.raises(NeedsAttentionError, match=r"run book: the event of step 'write'.*words.*flow\.resume"):
            await handler
        async with Journal(url) as journal:
            return (await journal.run("book")).status

    async def repaired() -> object:
        return await (await flow_with({"words": 0}, url).resume("book"))

    asyncio.run(first())
    assert asyncio.run(meanwhile_the_class_asks_for_more()) == "needs_attention"
    assert asyncio.run(repaired()) == 3
