"""What a run wants done next: the outputs of `due`, carried out by the loop once the journal is durable."""

from typing import NamedTuple

from .records import TaskId


class RunStep(NamedTuple):
    """Call the step for this task."""

    task: TaskId


class FireTimer(NamedTuple):
    """A `ctx.sleep` is over."""

    timer: int


class ExpireWait(NamedTuple):
    """The deadline of a wait has passed."""

    wait_id: str


class EndByTimeout(NamedTuple):
    """The budget of active time is used up."""


class ParkAside(NamedTuple):
    """Pending work has no step to go to; `steps` are the missing ones."""

    steps: tuple[str, ...]


class WakeAt(NamedTuple):
    """Ask `due` again at this time (us)."""

    at: int


Command = RunStep | FireTimer | ExpireWait | EndByTimeout | ParkAside | WakeAt
