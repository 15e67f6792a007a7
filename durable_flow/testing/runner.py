"""`WorkflowTestRunner`: runs a workflow to its end and gives what came out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .. import Context, Event, StartEvent, Workflow


@dataclass
class WorkflowTestResult:
    """What a run gave.

    Attributes:
        collected: the events of its stream, in order, the one that ended it included.
        event_types: how many there are of each class.
        result: what awaiting the handler gave.
        ctx: the run's context.
    """

    collected: list[Event]
    event_types: dict[type[Event], int]
    result: Any
    ctx: Context[Any]


class WorkflowTestRunner:
    """Runs a workflow end to end, on the journal that it was given; `journal="memory://"` leaves nothing behind."""

    def __init__(self, workflow: Workflow):
        self._workflow = workflow

    async def run(
        self,
        start_event: StartEvent | None = None,
        ctx: Any = None,
        expose_internal: bool = True,
        exclude_events: Collection[type[Event]] | None = None,
    ) -> WorkflowTestResult:
        """Run the workflow and collect its stream. Raises the run's error.

        Args:
            start_event: begins the run; None: a StartEvent without arguments.
            ctx: the context to go on with, as for `Workflow.run`.
            expose_internal: collect internal events (StepStateChanged and others) too.
            exclude_events: classes, exactly these, that are not collected.
        """
        excluded = frozenset(exclude_events or ())
        handler = self._workflow.run(ctx=ctx, start_event=start_event)
        events = [
            event
            async for event in handler.stream_events(expose_internal=expose_internal)
            if type(event) not in excluded
        ]
        return WorkflowTestResult(events, dict(Counter(map(type, events))), await handler, handler.ctx)
