"""What ran how often: the side file that the step bodies write, held against the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..records import EncodedEvent, EventEmitted, Record, StepCompleted, TaskId

Work = tuple[str, str]
"""A step, and what the event that it got is about."""


def bodies(side_file: Path) -> Counter[Work]:
    """Return how often each step body has begun, for each thing to work on. A line cut by a kill does not count."""
    if not side_file.exists():
        return Counter()
    *lines, _ = side_file.read_text(encoding="utf-8").split("\n")
    return Counter((step, subject) for step, _, subject in (line.partition("\t") for line in lines))


@dataclass
class Tasks:
    """A run's tasks, as far as the journal was read. `subject` tells what an event is about."""

    subject: Callable[[EncodedEvent], str]
    seq: int = 0
    known: dict[TaskId, Work] = field(default_factory=dict)
    completed: set[TaskId] = field(default_factory=set)

    def add(self, records: Iterable[Record]) -> None:
        """Take in what was appended since the last time."""
        for record in records:
            self.seq = record.seq
            match record.fact:
                case EventEmitted(event=event, targets=targets):
                    for step in targets:
                        self.known[TaskId(record.seq, step)] = (step, self.subject(event))
                case StepCompleted(task=task):
                    self.completed.add(task)

    def of(self, step: str) -> list[TaskId]:
        """Return the tasks of a step."""
        return [task for task in self.known if task.step == step]

    def done(self) -> Counter[Work]:
        """Return what has been completed, and how often."""
        return Counter(self.known[task] for task in self.completed)

    def in_flight(self, begun: Counter[Work]) -> list[TaskId]:
        """Return the tasks whose body has begun and whose completion is not in the journal."""
        return [task for task in self.known if task not in self.completed and begun[self.known[task]]]


class StepRuns(NamedTuple):
    """How often a step ran: its tasks, those completed at the kill, bodies begun before and after it.

    `repeated` are the bodies that ran again although the journal had their completion. It must be 0.
    """

    step: str
    tasks: int
    completed: int
    before: int
    after: int
    repeated: int


class Kill(NamedTuple):
    """What was completed and what had begun when the process was killed, read after its end."""

    done: Counter[Work]
    begun: Counter[Work]


def compare(kill: Kill, tasks: Tasks, begun: Counter[Work]) -> list[StepRuns]:
    """Return a line for each step, in the order of their first tasks."""
    all_work = Counter(tasks.known.values())
    later = begun - kill.begun
    steps = dict.fromkeys(step for step, _ in tasks.known.values())
    # A body may run after the kill for each task that was not completed at the kill, once.
    repeated = later - (all_work - kill.done)
    return [
        StepRuns(step, *(_count(step, works) for works in (all_work, kill.done, kill.begun, later, repeated)))
        for step in steps
    ]


def _count(step: str, works: Counter[Work]) -> int:
    return sum(count for (name, _), count in works.items() if name == step)
