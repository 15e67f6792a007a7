"""A journal that can be read with its key alone: what steps exchange and keep is encrypted in the database.

    pip install 'durable-flow[encryption]'
    python examples/encrypted_journal.py            # writes a letter, and what the database file shows of it
    python examples/encrypted_journal.py rotate     # a new key in front; what older ones have written stays readable

The keys are in `journal.keys` in this folder, the newest first; a real program has them from its store of secrets.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from durable_flow import Context, EncryptedSeal, Event, Journal, StartEvent, StopEvent, Workflow, step

KEYS = Path("journal.keys")
DATABASE = Path("letters.db")


class Letter(Event):
    text: str


class Correspondence(Workflow):
    @step
    async def write(self, ctx: Context, ev: StartEvent) -> Letter:
        await ctx.store.set("patient", ev.patient)
        return Letter(text=f"Dear {ev.patient}, your results are fine.")

    @step
    async def post(self, ctx: Context, ev: Letter) -> StopEvent:
        return StopEvent(result=f"{ev.text} ({len(ev.text)} letters for {await ctx.store.get('patient')})")


def keys() -> list[str]:
    if not KEYS.exists():
        add_key()
    return KEYS.read_text().split()


def add_key() -> None:
    older = KEYS.read_text() if KEYS.exists() else ""
    KEYS.touch(mode=0o600)
    KEYS.write_text(f"{EncryptedSeal.new_key()}\n{older}")


def is_found(text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in Path().glob(f"{DATABASE}*"))


async def main() -> None:
    if sys.argv[1:] == ["rotate"]:
        add_key()
        print(f"{len(keys())} keys; the first one writes, all of them read")
    async with Journal(f"sqlite:///{DATABASE}", seal=EncryptedSeal(keys=keys())) as journal:
        patient = os.environ.get("PATIENT", "Ms Rosebud")
        print(await Correspondence(journal=journal).run(patient=patient))
        runs = await journal.runs()
        for run in runs:
            print(f"run {run.run_id}: {run.status}, context {(await journal.state(run.run_id)).context}")
    print(f"{len(runs)} runs; {patient} in the files of the database: {'yes' if is_found(patient) else 'no'}")


if __name__ == "__main__":
    asyncio.run(main())
