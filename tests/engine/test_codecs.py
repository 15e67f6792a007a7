"""Serializers chosen per journal, workflow and event class: mixed rows of one run, and what is missing."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, ClassVar

import pytest

from durable_flow import (
    Context,
    DeserializationError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    JsonPickleSerializer,
    JsonSerializer,
    PickleSerializer,
    SerializationError,
    StartEvent,
    StopEvent,
    UnknownEvent,
    Workflow,
    step,
)
from durable_flow.records import MessageReceived

from .flows import released, until

NewJournal = Callable[..., Journal]


class Reversed:
    """A serializer of somebody else's: text only, backwards."""

    codec = "reversed"

    def serialize(self, value: Any) -> bytes:
        return repr(JsonSerializer().serialize(value).decode()[::-1]).encode()

    def deserialize(self, data: bytes) -> Any:
        import ast

        return JsonSerializer().deserialize(ast.literal_eval(data.decode())[::-1].encode())


class CodecBatch(Event):
    event_serializer: ClassVar[Any] = PickleSerializer(key="of the class")
    rows: Any


class CodecQuestion(InputRequiredEvent):
    text: str


class CodecAnswer(HumanResponseEvent):
    event_serializer: ClassVar[Any] = PickleSerializer(key="of the class")
    text: str


class Mixed(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> CodecBatch:
        await ctx.store.set("n", (1, 2))
        return CodecBatch(rows=deque([1, 2]))

    @step
    async def ask(self, ctx: Context, ev: CodecBatch) -> CodecQuestion:
        await ctx.store.set("rows", list(ev.rows))
        return CodecQuestion(text="go on?")

    @step
    async def end(self, ctx: Context, ev: CodecAnswer) -> StopEvent:
        return StopEvent(result=[ev.text, await ctx.store.get("n"), await ctx.store.get("rows")])


async def asked(journal: Journal, run_id: str, **options: Any) -> None:
    """Run up to the question, and give the run back."""
    handler = Mixed(journal=journal, **options).run(run_id=run_id)

    async def open_() -> bool:
        return any(wait.run_id == run_id for wait in await journal.pending())

    await until(open_)
    await released(handler)


async def codecs(journal: Journal, run_id: str) -> set[str]:
    facts = [record.fact for record in await journal.history(run_id)]
    return {part.codec for fact in facts for part in fact if hasattr(part, "codec")}


async def test_a_run_has_rows_of_several_serializers_and_goes_on(new_journal: NewJournal) -> None:
    pickles = PickleSerializer(key="of the journal")
    async with new_journal(serializer=pickles, readers=[Reversed()]) as journal:
        await asked(journal, "film")
        assert await codecs(journal, "film") == {"pickle"}
        # Another one from now on, as after a change of the program.
        flow = Mixed(journal=journal, serializer=Reversed())
        handler = await flow.resume("film")
        await journal.send("film", CodecAnswer(text="yes"))
        assert await handler == ["yes", (1, 2), [1, 2]]
        # What others send is JSON whatever the class says.
        assert await codecs(journal, "film") == {"pickle", "reversed", "json"}
        assert (await journal.state("film")).context == {"n": (1, 2), "rows": [1, 2]}
        assert [journal.decode(r.fact.event) for r in await journal.history("film") if hasattr(r.fact, "event")]


async def test_a_class_has_a_serializer_of_its_own(new_journal: NewJournal) -> None:
    async with new_journal() as journal:
        await asked(journal, "film")
        events = [getattr(record.fact, "event", None) for record in await journal.history("film")]
        (batch,) = [event for event in events if event is not None and event.name == "CodecBatch"]
        assert batch.codec == "pickle"
        assert journal.decode(batch) == CodecBatch(rows=deque([1, 2]))
        assert await codecs(journal, "film") == {"pickle", "json"}


@pytest.mark.parametrize("kind", ["workflow", "journal"])
async def test_a_run_whose_serializer_is_missing_is_left_and_told(new_journal: NewJournal, kind: str) -> None:
    if new_journal.args == ("memory://",):  # type: ignore[attr-defined]
        pytest.skip("kept by one Journal object, with one serializer")
    options = {"serializer": Reversed()}
    async with new_journal(**(options if kind == "journal" else {})) as journal:
        await asked(journal, "film", **(options if kind == "workflow" else {}))
    async with new_journal() as journal:
        history = await journal.history("film")
        written = {r.seq for r in history if any(getattr(p, "codec", "") == "reversed" for p in r.fact)}
        with pytest.raises(DeserializationError, match=r"run film, seq \d+ .*'reversed'.*readers=") as caught:
            await Mixed(journal=journal).resume("film")
        assert int(re.findall(r"seq (\d+)", str(caught.value))[0]) in written
        assert (await journal.run("film")).status == "waiting"
        # It is shown as far as it can be.
        (wait,) = await journal.pending()
        assert isinstance(wait.prompt, UnknownEvent)
        assert (await journal.state("film")).context["rows"].codec == "reversed"
    async with new_journal(readers=[Reversed()]) as journal:
        handler = await Mixed(journal=journal).resume("film")
        await journal.send("film", CodecAnswer(text="yes"))
        assert await handler == ["yes", (1, 2), [1, 2]]


async def test_a_result_whose_serializer_is_missing_is_told(new_journal: NewJournal) -> None:
    if new_journal.args == ("memory://",):  # type: ignore[attr-defined]
        pytest.skip("kept by one Journal object, with one serializer")
    async with new_journal(serializer=PickleSerializer(key="k")) as journal:
        await asked(journal, "film")
        handler = await Mixed(journal=journal).resume("film")
        await journal.send("film", CodecAnswer(text="yes"))
        await handler
    async with new_journal() as journal:
        last = (await journal.run("film")).seq
        with pytest.raises(DeserializationError, match=rf"run film, seq {last} \(RunCompleted\): .*'pickle'"):
            await (await Mixed(journal=journal).resume("film"))


def test_unsafe_serializers_need_a_key_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DURABLE_FLOW_SERIALIZER_KEY", raising=False)
    unsigned = type("CodecUnsigned", (Event,), {"event_serializer": PickleSerializer(), "__module__": __name__})

    class Unsigned(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> unsigned:  # type: ignore[valid-type]
            return unsigned()

        @step
        async def end(self, ev: unsigned) -> StopEvent:  # type: ignore[valid-type]
            return StopEvent()

    for make in (
        lambda: Journal("memory://", serializer=JsonPickleSerializer()),
        lambda: Journal("memory://", readers=[PickleSerializer()]),
        lambda: Mixed(serializer=PickleSerializer()),
        Unsigned,
    ):
        with pytest.raises(SerializationError, match="DURABLE_FLOW_SERIALIZER_KEY"):
            make()


async def test_a_message_is_json_or_is_not_read(new_journal: NewJournal) -> None:
    from durable_flow.journal.protocol import NewMessage
    from durable_flow.serializers import Codec

    async with new_journal(serializer=PickleSerializer(key="k")) as journal:
        await asked(journal, "film")
        signed = Codec(PickleSerializer(key="of the class")).encode_event(CodecAnswer(text="forged"))
        key = (await journal._row("film")).run
        await journal._shared.store.send(key, NewMessage("event", "forged", signed))
        handler = await Mixed(journal=journal).resume("film")
        async with aclosing(journal.follow("film")) as records:
            async for record in records:
                if isinstance(record.fact, MessageReceived):
                    break  # before that it might be the answer
        await journal.send("film", CodecAnswer(text="yes"))
        assert (await handler)[0] == "yes"
