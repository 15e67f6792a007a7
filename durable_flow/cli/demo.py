"""`durable-flow demo`: a document review that is killed in the middle, goes on, and asks a human in between."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import Journal
from ..errors import AlreadyAnsweredError, DurableFlowError, RunFinishedError, RunNotFoundError
from ..journal.protocol import FINAL_STATUSES
from ..records import EncodedEvent
from ..serializers import Codec, JsonSerializer
from . import history
from .child import Child, started
from .evidence import Kill, Tasks, bodies, compare
from .example import child_environment, example_path, load_example
from .text import INDENT, paragraph, table

POLL_SECONDS = 0.02
INTERRUPTED = 130  # the exit code of a program that was ended by Ctrl-C


class DemoFailedError(Exception):
    """The demo cannot go on; the message says why."""


class Demo:
    """One run of the demo for one question and corpus: begins a review, or goes on with an unfinished one."""

    def __init__(self, question: str | None, corpus: Path | None, answer: str | None, yes: bool) -> None:
        self.review: Any = load_example()
        self.given = {"--question": question, "--corpus": None if corpus is None else str(corpus)}
        self.question: str = question or self.review.QUESTION
        self.corpus = "" if corpus is None else str(corpus.resolve())
        self.folder = Path(self.review.FOLDER)
        self.answer = answer
        self.yes = yes
        self.codec = Codec(JsonSerializer())
        self.url: str = self.review.journal_url(self.folder)
        self.run_id = ""

    def run(self) -> int:
        """Run the demo at the terminal; return the exit code."""
        began = time.monotonic()
        try:
            self.folder.mkdir(exist_ok=True)
            finished = self._go()
        except KeyboardInterrupt:
            print(f"\nStopped. The review is in the journal; this line goes on with it:\n{INDENT}{self._line()}")
            return INTERRUPTED
        except (DemoFailedError, DurableFlowError, OSError) as error:
            print(f"durable-flow demo: {error}", file=sys.stderr)
            return 1
        if finished:
            print(f"\nThat took {time.monotonic() - began:.1f} s. Again: {self._line()}")
        return 0

    def _go(self) -> bool:
        """Return whether the review came to its end; if not, the line that answers the open question was printed."""
        self.run_id = asyncio.run(self._find_run())
        self._introduce()
        wait = asyncio.run(self._open_question())
        if wait is None and self.answer:
            raise DemoFailedError(f"no question is open, so there is nothing to answer. Start with: {self._line()}")
        if wait is None:
            asyncio.run(self._survive_a_kill())
            wait = asyncio.run(self._open_question())
        while wait is not None:
            answer = self._ask(wait)
            if answer is None:
                return False
            asyncio.run(self._answer(wait, answer))
            answered, wait = wait, asyncio.run(self._open_question())
            if wait is not None and wait.wait_id == answered.wait_id:
                raise DemoFailedError(f"run {self.run_id}: the question was answered and is still open.")
        asyncio.run(self._conclude())
        return True

    # -- The run -------------------------------------------------------------------------------------------------------

    @property
    def _side_file(self) -> Path:
        path: Path = self.review.side_file(self.folder, self.run_id)
        return path

    async def _find_run(self) -> str:
        """Return the id of the unfinished run for this question and corpus, or a new one."""
        # Equal arguments lead to the same ids, so that the same line, typed again, finds its run.
        digest = hashlib.sha256(f"{self.question}\0{self.corpus}".encode("utf-8", "surrogateescape")).hexdigest()[:6]
        number = 1
        async with Journal(self.url) as journal:
            while True:
                run_id = f"review-{digest}-{number}"
                try:
                    if (await journal.run(run_id)).status not in FINAL_STATUSES:
                        return run_id
                except RunNotFoundError:
                    return run_id
                number += 1

    def _introduce(self) -> None:
        texts = self.review.read_corpus(self.corpus, leave_out=self.folder)
        if not texts:
            raise DemoFailedError(f"{self.corpus} has no {', '.join(sorted(self.review.ENDINGS))} files to review.")
        source = self.given["--corpus"] or "the language reference that Python ships"
        print(paragraph(f"question  {self.question}", ""))
        print(f"corpus    {source}, {len(texts)} documents")
        print(f"run       {self.run_id}, in the journal {self.url}")

    def _child_command(self) -> list[str]:
        return [
            sys.executable,
            str(example_path()),
            f"--run-id={self.run_id}",
            f"--question={self.question}",
            f"--corpus={self.corpus}",
            f"--folder={self.folder}",
        ]

    async def _go_on(self) -> None:
        """Run the review in a process of its own, until it ends or waits for a human."""
        async with started(self._child_command(), child_environment()) as child:
            code = await child.wait()
        if code:
            raise DemoFailedError(f"run {self.run_id}: its process {child.pid} ended with exit code {code}, see above.")

    # -- The kill ------------------------------------------------------------------------------------------------------

    async def _survive_a_kill(self) -> None:
        print("\n1. Start the review in a process of its own; kill it while it scores the candidates")
        async with Journal(self.url) as journal:
            kill = await self._kill_in_the_middle(journal)
            if kill is None:
                return
            print("\n2. Start the same line again: it goes on")
            await self._go_on()
            tasks = self._tasks()
            tasks.add(await journal.history(self.run_id))
        runs = compare(kill, tasks, bodies(self._side_file))
        head = ("step", "tasks", "completed at the kill", "begun before it", "begun after it", "completed, ran again")
        print(f"\n{INDENT}How often each step ran, as its body wrote into {self._side_file}:")
        print(table(head, runs))
        repeated = [one.step for one in runs if one.repeated]
        if repeated:
            raise DemoFailedError(f"run {self.run_id}: completed steps ran again: {', '.join(repeated)}.")

    async def _kill_in_the_middle(self, journal: Journal) -> Kill | None:
        """Start the review and kill it; None if it came to its end, or to a question, before that was possible."""
        tasks = self._tasks()
        async with started(self._child_command(), child_environment()) as child:
            print(f"{INDENT}[{child.pid}] started")
            if await self._scores(journal, child, tasks):
                await child.kill()
            elif code := await child.wait():
                raise DemoFailedError(f"run {self.run_id}: its process {child.pid} ended with exit code {code}.")
            else:
                print(f"{INDENT}[{child.pid}] ended: there was no moment with some scores done and others in flight")
                return None
        # Only what the journal has after the end of the process counts as completed.
        tasks.add(await journal.history(self.run_id, after=tasks.seq))
        kill = Kill(tasks.done(), bodies(self._side_file))
        scores = tasks.of("score")
        done = sum(1 for task in scores if task in tasks.completed)
        in_flight = sum(1 for task in tasks.in_flight(kill.begun) if task.step == "score")
        print(f"{INDENT}[{child.pid}] killed with SIGKILL: {done} of {len(scores)} scored, {in_flight} in flight")
        return kill

    async def _scores(self, journal: Journal, child: Child, tasks: Tasks) -> bool:
        """Watch the journal; return whether a third of the scores is done, not all, and at least one in flight."""
        while not child.ended:
            with suppress(RunNotFoundError):  # the child has not come to its first record
                tasks.add(await journal.history(self.run_id, after=tasks.seq))
            scores = tasks.of("score")
            done = [task for task in scores if task in tasks.completed]
            in_flight = [task for task in tasks.in_flight(bodies(self._side_file)) if task.step == "score"]
            if done and len(done) >= len(scores) // 3 and in_flight:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    def _tasks(self) -> Tasks:
        return Tasks(self._subject)

    def _subject(self, event: EncodedEvent) -> str:
        subject: str = self.review.subject(self.codec.decode_event(event))
        return subject

    # -- The human -----------------------------------------------------------------------------------------------------

    async def _open_question(self) -> Any:
        """Return the oldest open question of this run, or None."""
        async with Journal(self.url) as journal:
            return next((wait for wait in await journal.pending() if wait.run_id == self.run_id), None)

    def _ask(self, wait: Any) -> str | None:
        """Show the question and return the answer; None if nobody is there to answer."""
        asked = wait.prompt
        print(f"\n3. No process of the review is alive. Question {asked.number} of {asked.of}, from the journal:")
        print(paragraph(f"Is {asked.title!r} worth keeping? It scores {asked.score}, the best one {asked.best}."))
        print(paragraph(asked.excerpt, INDENT * 2))
        given, self.answer = self.answer, None
        if given is None and self.yes:
            given = "yes"
        if given is not None:
            print(f"{INDENT}Answered with {given}.")
            return given
        answer = _ask_at_terminal() if sys.stdin.isatty() else None
        if answer is None:
            print(f"{INDENT}Nobody is at the terminal. These lines answer, now or next week:")
            print(f"{INDENT * 2}{self._line('--answer=yes')}\n{INDENT * 2}{self._line('--answer=no')}")
        return answer

    async def _answer(self, wait: Any, answer: str) -> None:
        """Send the answer from this process, which is none of the review's, and let the review go on."""
        async with Journal(self.url) as journal:
            try:
                await journal.send(self.run_id, self.review.Approval(response=answer), wait_id=wait.wait_id)
            except (AlreadyAnsweredError, RunFinishedError) as error:
                print(paragraph(f"Somebody else was faster: {error}"))
        await self._go_on()

    # -- The end -------------------------------------------------------------------------------------------------------

    async def _conclude(self) -> None:
        async with Journal(self.url) as journal:
            info = await journal.run(self.run_id)
            if info.status != "completed":
                raise DemoFailedError(f"run {self.run_id} is {info.status}, although its process has ended.")
            records = await journal.history(self.run_id)
        print("\n4. The journal of the run, one line for each transaction")
        print(table(("seq", "seconds", "step", "what was written"), history.rows(records)))
        print(f"\nThe report: {self.review.report_file(self.folder, self.run_id)}")

    def _line(self, *more: str) -> str:
        """Return the line that goes on with this run."""
        given = [f"{option}={value}" for option, value in self.given.items() if value is not None]
        return shlex.join([*_program(), "demo", *given, *(["--yes"] if self.yes else []), *more])


def _ask_at_terminal() -> str | None:
    while True:
        try:
            answer = input(f"{INDENT}Keep it? [Y/n] ").strip().lower()
        except EOFError:
            print()
            return None
        if answer in ("", "y", "yes"):
            return "yes"
        if answer in ("n", "no"):
            return "no"
        print(f"{INDENT}Enter or y keeps it, n leaves it out.")


def _program() -> list[str]:
    """Return how this program was called."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return [sys.executable, "-m", "durable_flow.cli"]
    found = shutil.which(called.name)
    if found is not None and Path(found).resolve() == called.resolve():
        return [called.name]
    return [str(called)]
