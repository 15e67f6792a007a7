"""What is due in a run: from its state, the time and the limits alone, so that recovery needs no code of its own."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from .commands import Command, EndByTimeout, ExpireWait, FireTimer, ParkAside, RunStep, WakeAt
from .records import TaskId
from .state import RunState


class Limits(NamedTuple):
    """What the workflow's class and arguments allow: tasks per step at once, and active time in microseconds."""

    num_workers: Mapping[str, int]
    timeout: int | None


def due(
    state: RunState, limits: Limits, now: int, busy: Mapping[str, int], running: Mapping[str, Collection[TaskId]]
) -> list[Command]:
    """Return what to do now.

    `running` are the tasks in flight by step; `busy` counts those that hold a worker (suspended ones do not).
    """
    if state.ended or state.attention:
        return []
    missing = {step for step, queue in state.runnable.items() if queue and step not in limits.num_workers}
    missing.update(task.step for task in state.delayed if task.step not in limits.num_workers)
    if missing:
        return [ParkAside(tuple(sorted(missing)))]
    commands: list[Command] = []
    alarms: list[int] = []
    if limits.timeout is not None and state.active:
        deadline = state.last_at + limits.timeout - state.active_us
        if now >= deadline:
            return [EndByTimeout()]
        alarms.append(deadline)
    started: dict[str, int] = {}
    for task_id, at in state.delayed.items():
        if task_id in running.get(task_id.step, ()):
            continue
        if at > now:
            alarms.append(at)
        elif busy.get(task_id.step, 0) + started.get(task_id.step, 0) < limits.num_workers[task_id.step]:
            started[task_id.step] = started.get(task_id.step, 0) + 1
            commands.append(RunStep(task_id))
    first, queues = len(commands), 0
    for step, queue in state.runnable.items():
        if not queue:
            continue
        free = limits.num_workers[step] - busy.get(step, 0) - started.get(step, 0)
        if free <= 0:
            continue
        mine = running.get(step, ())
        if len(mine) >= len(queue) and not state.delayed:
            continue  # all of them are in flight, many of them perhaps suspended
        queues += 1
        for task_id in queue:
            if task_id not in mine:
                commands.append(RunStep(task_id))
                free -= 1
                if not free:
                    break
    if queues > 1:
        # In the order of their events, whichever steps take them; of one event in the order of its targets.
        commands[first:] = sorted(commands[first:], key=_seq)
    for timer in state.timers.values():
        if not timer.fired_at:
            if timer.due_at <= now:
                commands.append(FireTimer(timer.seq))
            else:
                alarms.append(timer.due_at)
    for wait in state.waits.values():
        if wait.deadline is not None and wait.is_open:
            if wait.deadline <= now:
                commands.append(ExpireWait(wait.wait_id))
            else:
                alarms.append(wait.deadline)
    if alarms:
        commands.append(WakeAt(min(alarms)))
    return commands


def _seq(command: Command) -> int:
    assert isinstance(command, RunStep)
    return command.task.seq
