"""Checkpoint the runs of a workflow, look at the checkpoints, and run from one of them.

    python examples/checkpointing.py

This is LlamaIndex's notebook on checkpointing, with a model that needs no network: a joke is told and criticised. The
last part is not in the notebook, whose checkpoints were lost with its process: here they are in the journal
(`durable_flow.db` in this folder), so another checkpointer, today or tomorrow, finds them there.
"""

from __future__ import annotations

import asyncio

from durable_flow import Event, Journal, StartEvent, StopEvent, Workflow, WorkflowCheckpointer, step


class OfflineModel:
    """Stands for a language model, with the call that those of LlamaIndex have; `asked` counts."""

    asked = 0

    async def acomplete(self, prompt: str) -> str:
        self.asked += 1
        if prompt.startswith("Write"):
            return f"Why is {prompt.removeprefix('Write your best joke about ')[:-1]} funny? It is not."
        return f"So so: {prompt.partition(': ')[2]}"


class JokeEvent(Event):
    joke: str


class JokeFlow(Workflow):
    llm = OfflineModel()

    @step
    async def generate_joke(self, ev: StartEvent) -> JokeEvent:
        topic = ev.topic

        prompt = f"Write your best joke about {topic}."
        response = await self.llm.acomplete(prompt)
        return JokeEvent(joke=str(response))

    @step
    async def critique_joke(self, ev: JokeEvent) -> StopEvent:
        joke = ev.joke

        prompt = f"Give a thorough analysis and critique of the following joke: {joke}"
        response = await self.llm.acomplete(prompt)
        return StopEvent(result=str(response))


def show(title: str, checkpointer: WorkflowCheckpointer) -> None:
    print(f"{title}:")
    for number, checkpoints in enumerate(checkpointer.checkpoints.values(), 1):
        print(f"  run {number} has checkpoints of {', '.join(str(c.last_completed_step) for c in checkpoints)}")


async def main() -> None:
    async with Journal("sqlite:///durable_flow.db") as journal:
        workflow = JokeFlow(journal=journal)
        wflow_ckptr = WorkflowCheckpointer(workflow=workflow)

        handler = wflow_ckptr.run(topic="chemistry")
        print(await handler)
        await wflow_ckptr.run(topic="biology")
        show("two runs", wflow_ckptr)

        after_joke = wflow_ckptr.filter_checkpoints(last_completed_step="generate_joke")
        for checkpoint in after_joke:
            assert isinstance(checkpoint.output_event, JokeEvent)
            print(f"after generate_joke: {checkpoint.output_event.joke}")

        # A checkpoint works with a new instance. The joke is not told again.
        wflow_ckptr.workflow = JokeFlow(journal=journal)
        asked = JokeFlow.llm.asked
        handler = wflow_ckptr.run_from(checkpoint=after_joke[0])
        print(f"from the checkpoint: {await handler}")
        print(f"the model was asked {JokeFlow.llm.asked - asked} time")

        # Its event may be another one.
        after_joke[0].output_event = JokeEvent(joke="An atom walks into a bar.")
        print(f"with another joke: {await wflow_ckptr.run_from(checkpoint=after_joke[0])}")

        wflow_ckptr.disable_checkpoint(step="critique_joke")
        await wflow_ckptr.run(topic="cars")
        show("with checkpoints of critique_joke disabled", wflow_ckptr)

        # What follows is not in the notebook: this checkpointer has seen none of these runs.
        later = WorkflowCheckpointer(workflow=JokeFlow(journal=journal))
        found = await later.load(handler.run_id)
        origin = (await journal.run(handler.run_id)).forked_from
        print(
            f"loaded: {found[0].last_completed_step}, of the run that went on from the first one: {origin is not None}"
        )


if __name__ == "__main__":
    asyncio.run(main())
