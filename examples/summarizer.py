"""Summarize a text in two steps: extract its key points, then write a summary of them.

    python examples/summarizer.py

You see each step as it runs, then the summary. Run the same line again: the run is completed, so no step runs and the
summary comes from the journal (`durable_flow.db` in this folder). Another run needs another run id:

    python examples/summarizer.py tuesday
"""

from __future__ import annotations

import asyncio
import sys

from durable_flow import Event, StartEvent, StopEvent, Workflow, step

TEXT = """
Artificial intelligence has transformed many industries. Machine learning enables computers to learn from data.
Deep learning uses neural networks with many layers. Natural language processing helps computers understand text.
AI applications include chatbots, recommendation systems, and autonomous vehicles.
"""


class KeyPointsEvent(Event):
    text: str
    points: list[str]


class OfflineModel:
    """Stands for a language model, with the call that those of LlamaIndex have."""

    async def acomplete(self, prompt: str) -> str:
        task, _, text = prompt.partition("\n\n")
        if task.startswith("Extract"):
            return "\n".join(sentence.strip() for sentence in text.replace("\n", " ").split(".") if sentence.strip())
        points = [line.removeprefix("- ") for line in text.splitlines()]
        return f"{len(points)} points, from {points[0]!r} to {points[-1]!r}."


class SummarizerWorkflow(Workflow):
    llm = OfflineModel()

    @step
    async def extract_points(self, ev: StartEvent) -> KeyPointsEvent:
        print("extracting the key points", flush=True)
        response = await self.llm.acomplete(f"Extract 3-5 key points, one on a line.\n\n{ev.text}")
        return KeyPointsEvent(text=ev.text, points=str(response).split("\n"))

    @step
    async def summarize(self, ev: KeyPointsEvent) -> StopEvent:
        print(f"summarizing {len(ev.points)} points", flush=True)
        points = "\n".join(f"- {point}" for point in ev.points)
        return StopEvent(result=str(await self.llm.acomplete(f"Summarize these points.\n\n{points}")))


async def main(run_id: str) -> None:
    workflow = SummarizerWorkflow(timeout=60, journal="sqlite:///durable_flow.db")
    result = await workflow.run(text=TEXT, run_id=run_id)
    print(f"Summary: {result}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "summary-1"))
