"""Several strategies at once: improve a poor question, answer it in three ways, and let a judge take the best answer.

    python examples/multi_strategy.py

You see the question improved once, three strategies that begin together, and the answer of the best one. Run the same
line again: the answer comes from the journal (`durable_flow.db` in this folder). Another run needs another run id:
`python examples/multi_strategy.py tuesday`.
"""

from __future__ import annotations

import asyncio
import sys

from durable_flow import Context, Event, StartEvent, StopEvent, Workflow, step

DOCUMENTS = [
    "Swallows winter in Africa.",
    "Geese fly in a wedge to save strength.",
    "Swallows build nests of mud under roofs.",
    "A swallow flies eleven thousand kilometres between its nest and its winter quarters.",
]


class Judge(Event):
    query: str


class PoorQuery(Event):
    query: str


class Naive(Event):
    query: str


class HighTopK(Event):
    query: str


class Rerank(Event):
    query: str


class Response(Event):
    strategy: str
    answer: str


def words(text: str) -> set[str]:
    return {word.strip(".,?").rstrip("s") for word in text.lower().split()}


def retrieve(query: str, top_k: int) -> list[str]:
    """Return the documents with most of the query's words."""
    return sorted(DOCUMENTS, key=lambda text: -len(words(query) & words(text)))[:top_k]


class MultiStrategyWorkflow(Workflow):
    @step
    async def judge_query(self, ctx: Context, ev: StartEvent | Judge) -> PoorQuery | Naive | HighTopK | Rerank | None:
        """Send a good question to all strategies at once; have a poor one improved."""
        if len(ev.query.split()) < 3:
            return PoorQuery(query=ev.query)
        await ctx.set("query", ev.query)
        for strategy in (Naive, HighTopK, Rerank):
            ctx.send_event(strategy(query=ev.query))
        return None

    @step
    async def improve_query(self, ev: PoorQuery) -> Judge:
        print(f"improving {ev.query!r}", flush=True)
        return Judge(query=f"How far and where do {ev.query} go in winter")

    @step
    async def naive(self, ev: Naive) -> Response:
        print("strategy naive", flush=True)
        return Response(strategy="naive", answer=" ".join(retrieve(ev.query, 1)))

    @step
    async def high_top_k(self, ev: HighTopK) -> Response:
        print("strategy high top k", flush=True)
        return Response(strategy="high top k", answer=" ".join(retrieve(ev.query, 4)))

    @step
    async def rerank(self, ev: Rerank) -> Response:
        print("strategy rerank", flush=True)
        found = [text for text in retrieve(ev.query, 4) if "winter" in words(text)]
        return Response(strategy="rerank", answer=" ".join(sorted(found, key=len)))

    @step
    async def judge(self, ctx: Context, ev: Response) -> StopEvent | None:
        """Take the answer with the largest share of words that were asked for."""
        responses = ctx.collect_events(ev, [Response] * 3)
        if responses is None:
            return None
        asked = words(await ctx.get("query"))
        best = max(responses, key=lambda response: len(asked & words(response.answer)) / len(words(response.answer)))
        return StopEvent(result={"strategy": best.strategy, "answer": best.answer})


async def main(run_id: str) -> None:
    workflow = MultiStrategyWorkflow(timeout=60, journal="sqlite:///durable_flow.db")
    result = await workflow.run(query="swallows", run_id=run_id)
    print(f"Best strategy: {result['strategy']}. Answer: {result['answer']}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "multi-strategy-1"))
