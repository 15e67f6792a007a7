"""Everything that is wrong with a class is told at once, each problem with its step, its event and the remedy."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from durable_flow import (
    Context,
    Event,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    WorkflowConfigurationError,
    WorkflowValidationError,
    catch_error,
    step,
)


class Lost(Event):
    pass


class Unused(Event):
    pass


class Circle(Event):
    pass


class Round(Event):
    pass


def problems(error: Exception) -> list[str]:
    """Return the lines of an error, without its first one."""
    head, *rest = str(error).split("\n  - ")
    assert head.endswith(" cannot run:")
    return rest


def only(lines: list[str], *words: str) -> str:
    """Return the one line that has all of these words."""
    [found] = [line for line in lines if all(word in line for word in words)]
    return found


def test_five_problems_of_the_graph_are_told_at_once():
    class Five(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent | Unused: ...

        @step
        async def takes_what_nobody_gives(self, ev: Lost) -> StopEvent: ...

        @step
        async def takes_the_end(self, ev: StopEvent) -> None: ...

        @step
        async def there(self, ev: Circle) -> Round: ...

        @step
        async def back(self, ev: Round) -> Circle: ...

    with pytest.raises(WorkflowValidationError, match="Five cannot run:") as caught:
        Five().validate()
    lines = problems(caught.value)
    assert "Return it from a step" in only(lines, "'takes_what_nobody_gives'", "Lost", "never produced")
    assert "Add a step that accepts" in only(lines, "'begin'", "Unused", "never consumed")
    assert "Accept another event" in only(lines, "'takes_the_end'", "StopEvent", "ends the run")
    for name, event in (("there", "Circle"), ("back", "Round")):
        assert "remove the step" in only(lines, f"'{name}' is unreachable", event)
    for name, event in (("there", "Round"), ("back", "Circle")):
        assert "Return one of them" in only(lines, f"'{name}' is a dead end", event)
    assert len(lines) == 7


def test_five_problems_of_the_class_are_told_at_once_when_it_is_constructed():
    class First(BaseModel):
        a: int = 0

    class Second(BaseModel):
        b: int = 0

    class OtherStart(StartEvent):
        pass

    class Other:
        class Unused(Event):
            event_name = "Unused"

    class Five(Workflow):
        @step
        async def one(self, ctx: Context[First], ev: StartEvent) -> Unused: ...

        @step
        async def two(self, ctx: Context[Second], ev: OtherStart) -> Other.Unused: ...

        @step
        async def three(self, ev: Lost) -> None: ...

    with pytest.raises(WorkflowConfigurationError, match="Five cannot run:") as caught:
        Five()
    lines = problems(caught.value)
    assert "use one class for all" in only(lines, "several StartEvent classes", "StartEvent, OtherStart")
    assert "return annotation of the last step" in only(lines, "no step that returns a StopEvent")
    assert "event_name" in only(lines, "under one name, 'Unused'")
    assert "derive one of them" in only(lines, "unrelated state classes", "First", "Second")
    assert "Return it from a step" in only(lines, "'three'", "Lost", "never produced")
    # Which of the two starts is the right one is not for the graph to say.
    assert [line for line in lines if "OtherStart" in line and "never produced" in line] == []


def test_what_several_start_events_lead_to_is_not_called_unreachable():
    class OtherStart(StartEvent):
        pass

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Lost: ...

        @step
        async def begin_otherwise(self, ev: OtherStart) -> Lost: ...

        @step
        async def fan_out(self, ev: Lost) -> list[Circle]: ...

        @step
        async def join(self, evs: list[Circle]) -> StopEvent: ...

    with pytest.raises(WorkflowConfigurationError, match=r"^workflow .*several StartEvent classes: StartEvent, Other"):
        Flow()


def test_handlers_of_failures_are_told_along():
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> None: ...

        @catch_error(for_steps=["gone"])
        async def handle(self, ev: StepFailedEvent) -> Lost | None: ...

    with pytest.raises(WorkflowConfigurationError, match="Flow cannot run:") as caught:
        Flow()
    lines = problems(caught.value)
    assert "return annotation of the last step" in only(lines, "no step that returns a StopEvent")
    assert "Correct for_steps" in only(lines, "'handle' covers 'gone'")
    assert "Add a step that accepts" in only(lines, "'handle'", "Lost", "never consumed")


def test_the_only_problem_is_raised_as_it_is():
    class NoStop(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> None: ...

    with pytest.raises(WorkflowConfigurationError, match=r"^workflow .*NoStop has no step that returns a StopEvent"):
        NoStop()


def test_every_signature_that_cannot_be_resolved_is_told():
    class Unresolved(Workflow):
        @step
        async def one(self, ev: StartEvent) -> NotDefined: ...  # noqa: F821

        @step
        async def two(self, ev: Missing) -> StopEvent: ...  # noqa: F821

        @step
        async def three(self, ev: Absent): ...  # noqa: F821

    with pytest.raises(WorkflowValidationError, match="Unresolved cannot run:") as caught:
        Unresolved()
    lines = problems(caught.value)
    assert "Import the class" in only(lines, "Unresolved.one'", "the return annotation", "NotDefined")
    assert "Import the class" in only(lines, "Unresolved.two'", "parameter 'ev'", "Missing")
    assert "Import the class" in only(lines, "Unresolved.three'", "parameter 'ev'", "Absent")
    assert "Say which events it returns" in only(lines, "Unresolved.three'", "no return annotation")
    assert len(lines) == 4


def test_everything_that_is_wrong_with_one_signature_is_told_by_the_decorator():
    with pytest.raises(WorkflowValidationError, match=r"step '.*Flow\.work' cannot run:") as caught:

        class Flow(Workflow):
            @step(num_workers=0)
            async def work(self, ev=None): ...

    lines = problems(caught.value)
    assert "at least 1" in only(lines, "Flow.work'", "num_workers=0")
    assert "Annotate one" in only(lines, "Flow.work'", "no parameter annotated with an event class")
    assert "-> StopEvent" in only(lines, "Flow.work'", "no return annotation")
    assert len(lines) == 3


def test_a_return_annotation_that_may_still_be_defined_is_no_problem_of_the_signature():
    with pytest.raises(WorkflowValidationError, match=r"^step '.*Flow\.work' has no parameter annotated"):

        class Flow(Workflow):
            @step
            async def work(self, ev=None) -> Later: ...  # noqa: F821


def test_unrelated_state_classes_are_a_value_error_too():
    class First(BaseModel):
        a: int = 0

    class Second(BaseModel):
        b: int = 0

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context[First], ev: StartEvent) -> Lost: ...

        @step
        async def end(self, ctx: Context[Second], ev: Lost) -> StopEvent: ...

    with pytest.raises(ValueError, match="unrelated state classes"):
        Flow()
