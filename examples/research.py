"""Research a topic: classify it, gather sources at once, let a human decide on the doubtful ones, write a report.

    python examples/research.py

It gathers and rates three sources, prints a question about the one that it doubts, and ends; the question waits in the
journal (`durable_flow.db` in this folder). Answer it with the same line and a word more:

    python examples/research.py research-1 yes

Now the report is written; nothing is gathered or rated again. From then on each of the two lines prints the report.
"""

from __future__ import annotations

import asyncio
import sys

from durable_flow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

TOPIC = "How do birds navigate?"
# What a search would find: name, content, and how far it can be trusted.
SOURCES = {
    "science": [
        ("encyclopedia", "Birds sense the earth's magnetic field.", 0.9),
        ("journal", "Young birds inherit a direction and learn the rest.", 0.95),
        ("forum", "My pigeon follows the motorway.", 0.4),
    ],
    "other": [("encyclopedia", "Nothing is known about that.", 0.9)],
}
DOUBTFUL = 0.7


class TopicEvent(Event):
    topic: str
    category: str


class SourceEvent(Event):
    source: str
    content: str
    quality: float


class EvaluatedEvent(Event):
    source: str
    content: str
    accepted: bool


class ApprovalNeeded(InputRequiredEvent):
    source: str
    content: str


class Approval(HumanResponseEvent):
    response: str


class ResearchWorkflow(Workflow):
    @step
    async def classify_topic(self, ctx: Context, ev: StartEvent) -> TopicEvent:
        await ctx.set("topic", ev.topic)
        return TopicEvent(topic=ev.topic, category="science" if "birds" in ev.topic else "other")

    @step
    async def gather_sources(self, ctx: Context, ev: TopicEvent) -> list[SourceEvent]:
        found = SOURCES[ev.category]
        await ctx.set("count", len(found))
        return [SourceEvent(source=source, content=text, quality=quality) for source, text, quality in found]

    @step
    async def evaluate_quality(self, ctx: Context, ev: SourceEvent) -> EvaluatedEvent:
        # ctx.call: rated once, also when the step runs again because it waits for a human in between.
        quality = await ctx.call("rate", rate, ev.source, ev.quality)
        accepted = quality >= DOUBTFUL
        if not accepted:
            question = ApprovalNeeded(source=ev.source, content=ev.content)
            answer = await ctx.wait_for_event(Approval, waiter_event=question, timeout=None)
            accepted = answer.response == "yes"
        return EvaluatedEvent(source=ev.source, content=ev.content, accepted=accepted)

    @step
    async def synthesize(self, ctx: Context, ev: EvaluatedEvent) -> StopEvent | None:
        evaluated = ctx.collect_events(ev, [EvaluatedEvent] * await ctx.get("count"))
        if evaluated is None:
            return None
        print("writing the report", flush=True)
        lines = [f"- {one.content} ({one.source})" for one in evaluated if one.accepted]
        return StopEvent(result="\n".join([f"# {await ctx.get('topic')}", *sorted(lines)]))


async def rate(source: str, quality: float) -> float:
    print(f"rating the {source}", flush=True)
    return quality


async def main(run_id: str, answer: str | None) -> None:
    workflow = ResearchWorkflow(timeout=60, journal="sqlite:///durable_flow.db")
    handler = workflow.run(topic=TOPIC, run_id=run_id)
    async for event in handler.stream_events():
        if isinstance(event, ApprovalNeeded):
            if answer is None:
                print(f"waits for a human: may the {event.source} be used? It says: {event.content}")
                return  # leaving releases the run: it stays in the journal, unfinished
            await handler.send_event(Approval(response=answer), wait_id=event.wait_id)
    print(await handler)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "research-1", sys.argv[2] if len(sys.argv) > 2 else None))
