"""The notebook that seed 001 names, "Checkpointing Workflow Runs": every cell to the letter but for the import lines.

What it printed of steps and checkpoints is what is expected; the jokes are those of the stand-in model.
"""

from __future__ import annotations

import os

from durable_flow import (
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from durable_flow.checkpointer import WorkflowCheckpointer

from .standins import OpenAI

api_key = os.environ.get("OPENAI_API_KEY")


class JokeEvent(Event):
    joke: str


class JokeFlow(Workflow):
    llm = OpenAI(api_key=api_key)

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


def joke_about(topic: str) -> str:
    return f"gpt-4o-mini on: Write your best joke about {topic}."


def critique_of(topic: str) -> str:
    return f"gpt-4o-mini on: Give a thorough analysis and critique of the following joke: {joke_about(topic)}"


async def test_the_notebook_on_checkpointing_runs_and_prints_what_it_printed(capsys):
    # instantiate Jokeflow
    workflow = JokeFlow()
    wflow_ckptr = WorkflowCheckpointer(workflow=workflow)

    handler = wflow_ckptr.run(
        topic="chemistry",
        store_checkpoints=False,
    )
    assert await handler == critique_of("chemistry")

    [checkpoints] = wflow_ckptr.checkpoints.values()
    assert [(c.last_completed_step, type(c.input_event), type(c.output_event)) for c in checkpoints] == [
        ("generate_joke", StartEvent, JokeEvent),
        ("critique_joke", JokeEvent, StopEvent),
    ]
    assert [c.output_event.joke for c in checkpoints[:1]] == [joke_about("chemistry")]
    assert all(isinstance(c.ctx_state, dict) for c in checkpoints)

    for run_id, ckpts in wflow_ckptr.checkpoints.items():
        print(f"Run: {run_id} has {len(ckpts)} stored checkpoints")
    assert capsys.readouterr().out == f"Run: {handler.run_id} has 2 stored checkpoints\n"

    additional_topics = ["biology", "history"]

    for topic in additional_topics:
        handler = wflow_ckptr.run(topic=topic)
        await handler
    assert [len(ckpts) for ckpts in wflow_ckptr.checkpoints.values()] == [2, 2, 2]

    # Filter by the name of last completed step
    checkpoints_right_after_generate_joke_step = wflow_ckptr.filter_checkpoints(
        last_completed_step="generate_joke",
    )

    # checkpoint ids
    shown = [ckpt for ckpt in checkpoints_right_after_generate_joke_step]  # noqa: C416
    assert [ckpt.output_event for ckpt in shown] == [
        JokeEvent(joke=joke_about(topic)) for topic in ["chemistry", *additional_topics]
    ]

    # can work with a new instance
    new_workflow_instance = JokeFlow()
    wflow_ckptr.workflow = new_workflow_instance

    ckpt = checkpoints_right_after_generate_joke_step[0]

    handler = wflow_ckptr.run_from(checkpoint=ckpt)
    assert await handler == critique_of("chemistry")

    for run_id, ckpts in wflow_ckptr.checkpoints.items():
        print(f"Run: {run_id} has {len(ckpts)} stored checkpoints")
    counted = [line.split(" has ")[1] for line in capsys.readouterr().out.splitlines()]
    assert counted == ["2 stored checkpoints"] * 3 + ["1 stored checkpoints"]

    assert wflow_ckptr.enabled_checkpoints == {"critique_joke", "generate_joke"}

    wflow_ckptr.disable_checkpoint(step="critique_joke")

    handler = wflow_ckptr.run(topic="cars")
    assert await handler == critique_of("cars")

    for run_id, ckpts in wflow_ckptr.checkpoints.items():
        print(f"Run: {run_id} has stored checkpoints for steps {[c.last_completed_step for c in ckpts]}")
    both = "['generate_joke', 'critique_joke']"
    stored = [line.split(" for steps ")[1] for line in capsys.readouterr().out.splitlines()]
    assert stored == [both, both, both, "['critique_joke']", "['generate_joke']"]

    wflow_ckptr.enable_checkpoint(step="critique_joke")

    handler = wflow_ckptr.run(topic="cars")
    assert await handler == critique_of("cars")

    for run_id, ckpts in wflow_ckptr.checkpoints.items():
        print(f"Run: {run_id} has stored checkpoints for steps {[c.last_completed_step for c in ckpts]}")
    stored = [line.split(" for steps ")[1] for line in capsys.readouterr().out.splitlines()]
    assert stored == [both, both, both, "['critique_joke']", "['generate_joke']", both]
    # Three jokes and their critiques, the critique again, and twice the cars.
    assert len(OpenAI.prompts) == 3 * 2 + 1 + 2 * 2
