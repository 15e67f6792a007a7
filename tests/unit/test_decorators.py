"""`@step`: what a signature may look like, what is read from it, and what is refused with which words."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Generic, List, Optional, TypeVar, Union  # noqa: UP035  # both spellings

import pytest
from pydantic import BaseModel

from durable_flow.context import Context
from durable_flow.decorators import declaration_of, step
from durable_flow.errors import WorkflowValidationError
from durable_flow.events import Event, StartEvent, StopEvent
from durable_flow.retry_policy import ConstantDelayRetryPolicy
from durable_flow.steps import step_table
from durable_flow.workflow import Workflow


class A(Event):
    pass


class B(Event):
    pass


class State(BaseModel):
    n: int = 0


def config_of(function):
    return declaration_of(function).config()


def method(annotations, code=None):
    """Make a method `(self, ev, ctx=None)` with annotations as given, as if it stood in a class `Flow`."""

    def run_it(self, ev, ctx=None): ...

    function = code or run_it
    function.__qualname__ = f"Flow.{function.__name__}"
    function.__annotations__ = annotations
    return function


# -- What is accepted --------------------------------------------------------------------------------------------------


def test_defaults_without_and_with_parentheses():
    class Flow:
        @step
        async def bare(self, ev: A) -> B: ...

        @step()
        async def called(self, ev: A) -> B: ...

    for function in (Flow.bare, Flow.called):
        config = config_of(function)
        assert (config.accepted, config.emitted) == ((A,), (B,))
        assert (config.num_workers, config.retry_policy, config.is_async) == (4, None, True)
        assert config.function is function
    assert config_of(Flow.called).name == "called"


def test_options_are_kept():
    policy = ConstantDelayRetryPolicy()

    class Flow:
        @step(num_workers=7, retry_policy=policy)
        def work(self, ev: A) -> B: ...

    config = config_of(Flow.work)
    assert (config.num_workers, config.retry_policy, config.is_async) == (7, policy, False)


@pytest.mark.parametrize(
    "annotation",
    [A | B, Union[A, B], Optional[Union[A, B]], "A | B", "Union[A, B, None]", Union["A", "B"], A | B | None],  # noqa: UP007, UP045
)
def test_unions_of_events_in_any_spelling(annotation):
    config = config_of(step(method({"ev": annotation, "return": annotation})))
    assert config.accepted == (A, B)
    assert config.emitted == (A, B)


@pytest.mark.parametrize(
    ("annotation", "emitted", "returns_list", "returns_event"),
    [
        (None, (), False, True),
        (Any, (), False, True),
        (A, (A,), False, True),
        ("A | None", (A,), False, True),
        (list[A], (A,), True, False),
        (List[A], (A,), True, False),  # noqa: UP006
        ("list[A | B]", (A, B), True, False),
        ("list[A] | None", (A,), True, False),
        ("list[A] | list[B]", (A, B), True, False),
        ("list[A] | StopEvent", (A, StopEvent), True, True),
        (list, (), True, False),
        (list["A"], (A,), True, False),
        (Annotated[A, "told"], (A,), False, True),
        (Annotated[A | None, "told"], (A,), False, True),
        (list[Annotated[A | B, "told"]], (A, B), True, False),
    ],
)
def test_return_annotations(annotation, emitted, returns_list, returns_event):
    config = config_of(step(method({"ev": A, "return": annotation})))
    assert (config.emitted, config.returns_list, config.returns_event) == (emitted, returns_list, returns_event)


@pytest.mark.parametrize("annotation", [Context, Context[State], "Context", "Context[State]", "Context | None"])
def test_a_context_parameter_is_found_by_its_annotation(annotation):
    config = config_of(step(method({"ev": A, "ctx": annotation, "return": B})))
    assert config.context_parameter == "ctx"
    assert config.state_class is (State if "State" in str(annotation) else None)


def test_an_unannotated_ctx_is_the_context():
    class Flow:
        @step
        async def work(self, ctx, ev: A) -> B: ...

    assert config_of(Flow.work).context_parameter == "ctx"


def test_a_context_imported_for_type_checkers_only_is_known_by_name():
    namespace = {"Workflow": Workflow, "step": step, "StartEvent": StartEvent, "StopEvent": StopEvent, "State": State}
    source = """
from __future__ import annotations
class Flow(Workflow):
    @step
    async def plain(self, ctx: Context, ev: StartEvent) -> StopEvent: ...
    @step
    async def typed(self, ctx: durable_flow.Context[State], ev: StartEvent) -> StopEvent: ...
"""
    exec(source, namespace)
    steps = step_table(namespace["Flow"]).steps
    assert (steps["plain"].context_parameter, steps["plain"].state_class) == ("ctx", None)
    assert (steps["typed"].context_parameter, steps["typed"].state_class) == ("ctx", State)


def test_the_state_of_a_generic_base_is_left_open():
    S = TypeVar("S", bound=BaseModel)

    class Flow(Generic[S]):
        @step
        async def work(self, c: Context[S], ev: A) -> B: ...

        @step
        async def other(self, c: Context[Any], ev: A) -> B: ...

    assert config_of(Flow.work).state_class is None
    assert config_of(Flow.other).state_class is None


def test_order_and_names_of_parameters_are_free_and_defaults_stay():
    seen = []

    class Flow:
        @step
        def a(self, payload: A, c: Context) -> B:
            seen.append((self, payload, c))

        @step
        def b(self, limit: int = 3, what: A = None, *rest, c: Context, more: str = "x", **others) -> B:
            seen.append((self, limit, what, rest, c, more, others))

        @step
        def d(self, *, ev: A) -> B:
            seen.append((self, ev))

        @step
        def e(self, c: Context, ev: A, top_k=5) -> B:
            seen.append((self, c, ev, top_k))

        @step
        def f(self, ev: A, /) -> B:
            seen.append((self, ev))

    class Whole(Flow, Workflow):
        @step
        def start(self, ev: StartEvent) -> StopEvent: ...

    callers = step_table(Whole).callers
    for name in "abdef":
        callers[name]("flow", "event", "context")
    assert seen == [
        ("flow", "event", "context"),
        ("flow", 3, "event", (), "context", "x", {}),
        ("flow", "event"),
        ("flow", "context", "event", 5),
        ("flow", "event"),
    ]


def test_a_wrapper_made_with_wraps_is_what_runs():
    def doubling(function):
        @functools.wraps(function)
        async def wrapper(*args):
            return [await function(*args)] * 2

        return wrapper

    def passing_on(function):
        @functools.wraps(function)
        def wrapper(*args):
            return function(*args)

        return wrapper

    class Flow(Workflow):
        @step
        @passing_on
        async def plain_wrapper(self, ev: StartEvent) -> StopEvent: ...

        @step
        @doubling
        async def inside(self, ev: StartEvent) -> StopEvent: ...

        @doubling
        @step
        async def outside(self, ev: StartEvent) -> StopEvent: ...

    steps = step_table(Flow).steps
    assert steps["inside"].accepted == steps["outside"].accepted == (StartEvent,)
    assert steps["outside"].function is Flow.__dict__["outside"]
    assert all(config.is_async for config in steps.values())


def test_a_wrapper_made_without_wraps_is_told_what_is_missing():
    def careless(function):
        def wrapper(*args): ...

        return wrapper

    with pytest.raises(WorkflowValidationError, match=r"must use functools\.wraps"):

        class Flow(Workflow):
            @step
            @careless
            async def work(self, ev: StartEvent) -> StopEvent: ...


# -- Names that are local, or defined later ----------------------------------------------------------------------------


def test_classes_local_to_the_calling_function_resolve():
    class Local(Event):
        pass

    class Flow:
        class Nested(Event):
            pass

        @step
        async def work(self, ev: Local, ctx: Context) -> Nested: ...

    config = config_of(Flow.work)
    assert (config.accepted, config.emitted) == ((Local,), (Flow.Nested,))


def test_a_name_defined_after_the_class_resolves_when_the_workflow_is_used():
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Later: ...

        @step
        async def end(self, ev: Later) -> StopEvent: ...

    with pytest.raises(WorkflowValidationError, match=r"begin.*cannot be resolved.*return annotation.*Later"):
        step_table(Flow)

    class Later(Event):
        pass

    assert step_table(Flow).steps["begin"].emitted == (Later,)


def test_frames_are_not_kept_once_everything_is_resolved():
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopAtLast: ...

    declaration = declaration_of(Flow.begin)
    assert declaration._frames

    class StopAtLast(StopEvent):
        pass

    step_table(Flow)
    assert not declaration._frames


# -- What is refused ---------------------------------------------------------------------------------------------------


def test_a_missing_return_annotation():
    with pytest.raises(WorkflowValidationError, match=r"Flow.run_it' has no return annotation.*-> StopEvent"):
        step(method({"ev": A}))


@pytest.mark.parametrize("annotations", [{}, {"ev": int}, {"ev": list[int]}, {"ev": "dict[str, A]"}])
def test_no_event_parameter(annotations):
    def nothing(self, ev=None): ...

    with pytest.raises(WorkflowValidationError, match=r"no parameter annotated with an event class.*ev.*Annotate"):
        step(method({**annotations, "return": B}, nothing))


@pytest.mark.parametrize("annotation", [{}, {"service": dict[str, A]}])
def test_a_parameter_that_nobody_fills(annotation):
    def needs(self, ev, service): ...

    with pytest.raises(WorkflowValidationError, match=r"'service' that is neither an event nor a Context.*default"):
        step(method({"ev": A, **annotation, "return": B}, needs))


def test_several_contexts():
    def twice(self, ctx, other, ev): ...

    with pytest.raises(WorkflowValidationError, match=r"several Context parameters \(ctx, other\)"):
        step(method({"other": Context, "ev": A, "return": B}, twice))


def test_a_union_of_events_and_other_things():
    with pytest.raises(WorkflowValidationError, match=r"mixes events with str in parameter 'ev'"):
        step(method({"ev": A | str, "return": B}))


@pytest.mark.parametrize("annotation", [str, "A | dict", list[int], "list[A | None]", tuple[A, B], dict[str, Any]])
def test_a_return_annotation_that_names_no_event(annotation):
    with pytest.raises(WorkflowValidationError, match=r"Flow.run_it' returns .* no event class"):
        step(method({"ev": A, "return": annotation}))


@pytest.mark.parametrize("state", [int, list[int], str])
def test_a_state_that_is_no_model(state):
    with pytest.raises(WorkflowValidationError, match=r"the state must be a pydantic model"):
        step(method({"ev": A, "ctx": Context[state], "return": B}))


@pytest.mark.parametrize("value", [0, -1, True, False, 1.0, "4", None])
def test_a_bad_num_workers(value):
    with pytest.raises(WorkflowValidationError, match=r"Flow.run_it' has num_workers="):
        step(num_workers=value)(method({"ev": A, "return": B}))


@pytest.mark.parametrize("policy", [3, ConstantDelayRetryPolicy, lambda: 1])
def test_a_bad_retry_policy(policy):
    with pytest.raises(WorkflowValidationError, match=r"Flow.run_it' has retry_policy="):
        step(retry_policy=policy)(method({"ev": A, "return": B}))


def test_a_function_outside_a_class_needs_a_workflow():
    with pytest.raises(WorkflowValidationError, match=r"alone.*outside a class.*workflow=MyWorkflow"):

        @step
        async def alone(ev: A) -> B: ...


def test_a_method_does_not_take_a_workflow():
    with pytest.raises(WorkflowValidationError, match=r"Flow.work' is a method.*Remove workflow="):

        class Flow(Workflow):
            @step(workflow=Workflow)
            async def work(self, ev: A) -> B: ...


@pytest.mark.parametrize("state", [dict, dict[str, Any], "dict[str, int]", Mapping[str, Any]])
def test_a_state_that_is_a_dict_is_untyped(state):
    annotation = f"Context[{state}]" if isinstance(state, str) else Context[state]
    config = config_of(step(method({"ev": A, "ctx": annotation, "return": B})))
    assert (config.context_parameter, config.state_class) == ("ctx", None)


def test_everything_that_is_wrong_with_one_signature_is_told_at_once():
    def run_it(self, ev, ctx, service): ...

    function = method({"ev": A | str, "ctx": Context[int], "service": dict[str, A], "return": str}, run_it)
    with pytest.raises(WorkflowValidationError) as raised:
        step(num_workers=0)(function)
    head, *told = str(raised.value).split("\n  - ")
    assert head == "step 'Flow.run_it' cannot run:"
    starts = ["has num_workers=0", "mixes events", "has Context[int]", "has a parameter 'service'", "returns str"]
    assert len(told) == len(starts)
    for line, start in zip(told, starts, strict=True):
        assert f"step 'Flow.run_it' {start}" in line


def test_a_signature_without_an_event_and_without_a_return_annotation():
    def run_it(self, ctx): ...

    with pytest.raises(WorkflowValidationError) as raised:
        step(method({"ctx": Context}, run_it))
    assert "no parameter annotated with an event class" in str(raised.value)
    assert "no return annotation" in str(raised.value)


def test_a_parameter_that_cannot_be_read_is_not_called_a_missing_event_as_well():
    with pytest.raises(WorkflowValidationError) as raised:
        step(method({"ev": A | str, "return": B}))
    assert "no parameter annotated" not in str(raised.value)


def test_a_class_method_is_a_step():
    class OfClass(Workflow):
        @classmethod
        @step
        async def work(cls, ctx: Context, ev: StartEvent) -> StopEvent:
            return StopEvent()

    config = step_table(OfClass).steps["work"]
    assert (config.accepted, config.is_async, config.is_method) == ((StartEvent,), True, True)


def test_static_methods_and_class_methods_the_wrong_way_round():
    with pytest.raises(WorkflowValidationError, match=r"is a class method\. Put @classmethod above @step"):

        class Around(Workflow):
            @step
            @classmethod
            async def work(cls, ev: A) -> B: ...

    with pytest.raises(WorkflowValidationError, match="is a static method"):

        class Outside(Workflow):
            @step
            @staticmethod
            async def work(ev: A) -> B: ...

    with pytest.raises(WorkflowValidationError, match=r"event as the first parameter \(ev\).*Add self"):

        class Inside(Workflow):
            @staticmethod
            @step
            async def work(ev: A) -> B: ...

    class Static(Workflow):
        @staticmethod
        @step
        async def work(ctx: Context, ev: StartEvent) -> StopEvent: ...

    with pytest.raises(WorkflowValidationError, match="is a static method"):
        step_table(Static)


def test_a_method_without_self():
    with pytest.raises(WorkflowValidationError, match="without a self parameter"):

        class Flow(Workflow):
            @step
            async def work(*, ev: A) -> B: ...


def test_generators():
    with pytest.raises(WorkflowValidationError, match=r"is a generator.*list of events"):

        class Flow(Workflow):
            @step
            async def work(self, ev: A) -> B:
                yield B()


def test_something_that_is_no_function():
    with pytest.raises(WorkflowValidationError, match="no function"):
        step(3)


def test_a_decorated_function_stays_the_function_it_was():
    function = method({"ev": A, "return": B})
    assert step(function) is function
