"""Seed 004: "Can I use Workflows in production with FastAPI?", with the real FastAPI."""

from __future__ import annotations

import asyncio

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

from durable_flow import Journal, StartEvent, StopEvent, Workflow, step


class Answering(Workflow):
    @step
    async def answer(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=f"answer to {ev.query}")


workflow = Answering(timeout=30)  # made at import, before there is an event loop

app = FastAPI()


class QueryRequest(BaseModel):
    query: str


@app.post("/query")
async def query_endpoint(request: QueryRequest):
    result = await workflow.run(query=request.query)
    return {"answer": result}


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


async def test_the_endpoint_answers():
    async with client() as http:
        response = await http.post("/query", json={"query": "why?"})
    assert (response.status_code, response.json()) == (200, {"answer": "answer to why?"})


def test_a_module_level_workflow_serves_one_event_loop_after_another():
    async def ask(query: str) -> str:
        async with client() as http:
            response = await http.post("/query", json={"query": query})
            return response.json()["answer"]

    assert [asyncio.run(ask(query)) for query in ("one", "two")] == ["answer to one", "answer to two"]


async def test_requests_at_once_are_runs_of_their_own(database):
    async with client() as http:
        responses = await asyncio.gather(*(http.post("/query", json={"query": str(n)}) for n in range(10)))
    assert [response.json()["answer"] for response in responses] == [f"answer to {n}" for n in range(10)]
    async with Journal(database) as journal:
        runs = await journal.runs()
    assert [run.status for run in runs] == ["completed"] * 10


async def test_a_bad_request_starts_no_run(database):
    async with client() as http:
        assert (await http.post("/query", json={})).status_code == 422
    async with Journal(database) as journal:
        assert await journal.runs() == []
