"""Seed 002: "Human-in-the-Loop", the interactive review."""

from __future__ import annotations

import pytest

from durable_flow import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)


class ReviewEvent(Event):
    content: str
    requires_approval: bool


class InteractiveWorkflow(Workflow):
    @step
    async def generate(self, ev: StartEvent) -> ReviewEvent:
        content = await self.generate_content(ev.query)
        return ReviewEvent(content=content, requires_approval=self.needs_review(content))

    @step
    async def request_review(self, ev: ReviewEvent) -> InputRequiredEvent | StopEvent:
        if not ev.requires_approval:
            return StopEvent(result=ev.content)
        return InputRequiredEvent(prefix=f"Approve this content? {ev.content}")

    @step
    async def process_review(self, ev: HumanResponseEvent) -> StopEvent:
        if ev.response.lower() == "yes":
            return StopEvent(result={"status": "approved"})
        return StopEvent(result={"status": "rejected"})

    async def generate_content(self, query: str) -> str:
        return f"content on {query}"

    def needs_review(self, content: str) -> bool:
        return "risky" in content


async def test_what_needs_no_approval_is_the_result_at_once():
    assert await InteractiveWorkflow(timeout=30).run(query="birds") == "content on birds"


@pytest.mark.parametrize(("answer", "status"), [("Yes", "approved"), ("no", "rejected")])
async def test_a_human_is_asked_through_the_stream_and_answers_through_the_context(answer, status):
    workflow = InteractiveWorkflow(timeout=30)
    handler = workflow.run(query="risky birds")
    asked = []
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            asked.append(event.prefix)
            handler.ctx.send_event(HumanResponseEvent(response=answer))
    result = await handler
    assert asked == ["Approve this content? content on risky birds"]
    assert result == {"status": status}


async def test_the_answer_may_come_while_the_run_is_not_in_memory(database):
    """What the course asks for and upstream needs a server for: the question waits in the database."""
    handler = InteractiveWorkflow(timeout=30).run(query="risky birds", run_id="review")
    async for event in handler.stream_events():
        if isinstance(event, InputRequiredEvent):
            break
    async with Journal(database) as journal:
        [question] = await journal.pending()
        assert question.prompt.prefix == "Approve this content? content on risky birds"
        await journal.send("review", HumanResponseEvent(response="yes"), wait_id=question.wait_id)
    assert await InteractiveWorkflow(timeout=30).run(query="risky birds", run_id="review") == {"status": "approved"}
