"""A plain script with a step that always fails and a handler that takes it: run as `python failing.py`.

FAILING_HOLD=yes keeps the handler from ending. What runs goes to `ran.txt` in the current folder, one line each; the
script prints what a test waits for before it kills.
"""

from __future__ import annotations

import asyncio
import os

from durable_flow import Context, Journal, StartEvent, StepFailedEvent, StopEvent, Workflow, catch_error, step
from durable_flow.records import StepFailed
from durable_flow.retry_policy import retry_policy, stop_after_attempt, wait_fixed, wait_random

ATTEMPTS = 3
# Long enough for a busy machine to kill in the middle of it.
SECONDS = 1.0


class Refused(Exception):
    def __init__(self, host: str, attempt: int):
        super().__init__(f"{host} refused")
        self.host = host
        self.attempt = attempt


def note(what: str) -> None:
    with open("ran.txt", "a") as ran:
        ran.write(f"{what}\n")


class Failing(Workflow):
    @step(retry_policy=retry_policy(wait=wait_fixed(SECONDS) + wait_random(0, 0.2), stop=stop_after_attempt(ATTEMPTS)))
    async def fetch(self, ctx: Context, ev: StartEvent) -> StopEvent:
        before = ctx.retry_info()
        last = before.last_exception
        note(f"fetch {before.retry_number}, after {type(last).__name__} {vars(last) if last is not None else {}}")
        raise Refused("db", before.retry_number + 1)

    @catch_error
    async def rescue(self, ev: StepFailedEvent) -> StopEvent:
        note("rescue")
        if os.environ.get("FAILING_HOLD"):
            print("handling", flush=True)
            await asyncio.Event().wait()
        assert isinstance(ev.exception, Refused)
        return StopEvent(result=[str(ev.exception), ev.exception.attempt, ev.attempts])


async def main() -> None:
    """Start the run or go on with it, tell of its failures, and print its result."""
    async with Journal() as journal:
        handler = Failing(journal=journal, timeout=None).run(run_id="failing")
        result = asyncio.ensure_future(handler.stop_event_result())
        told = 0
        while not result.done():
            await asyncio.wait([result], timeout=0.01)
            if not result.done() and any(info.run_id == "failing" for info in await journal.runs()):
                failed = [r for r in await journal.history("failing") if isinstance(r.fact, StepFailed)]
                for record in failed[told:]:
                    print(f"failed {record.fact.attempt}", flush=True)  # type: ignore[union-attr]
                told = len(failed)
        print(f"result {(await result).result}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
