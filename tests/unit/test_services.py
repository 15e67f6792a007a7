"""ServiceManager, and what a step's signature says about services."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from durable_flow import (
    Context,
    Event,
    Resource,
    ServiceManager,
    ServiceNotFoundError,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    step,
)
from durable_flow.steps import step_table


class Model:
    def __init__(self, name: str = "model"):
        self.name = name


class Summary(Workflow):
    @step
    async def summarise(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result="short")


class Middle(Event):
    pass


# -- The manager -------------------------------------------------------------------------------------------------------


def test_a_service_is_given_as_the_object_that_was_added():
    services, model = ServiceManager(), Model()
    services.add("llm", model)
    assert services.get("llm") is model
    assert services.get("llm", "default") is model
    assert "llm" in services
    assert "other" not in services


def test_the_default_stands_in_for_a_service_that_is_not_there():
    default = Model()
    assert ServiceManager().get("llm", default) is default


def test_neither_service_nor_default_is_an_error_that_names_what_there_is():
    services = ServiceManager()
    services.add("llm", Model())
    with pytest.raises(
        ServiceNotFoundError, match=r"no service 'embedding' \(registered: llm\).*add\('embedding', ..."
    ) as e:
        services.get("embedding")
    assert isinstance(e.value, LookupError)


def test_a_falsy_service_is_a_service():
    services = ServiceManager()
    services.add("nothing", None)
    services.add("zero", 0)
    assert services.get("nothing") is None
    assert services.get("zero", 7) == 0


def test_adding_again_replaces():
    services = ServiceManager()
    services.add("llm", "old")
    services.add("llm", "new")
    assert services.get("llm") == "new"


@pytest.mark.parametrize("name", ["", "my llm", "1st", None])
def test_a_name_that_no_parameter_can_have(name: Any):
    with pytest.raises(ValueError, match="name of a parameter"):
        ServiceManager().add(name, Model())


# -- Workflows ---------------------------------------------------------------------------------------------------------


def test_add_workflows_takes_instances_of_workflows():
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent, summary: Summary) -> StopEvent:
            return StopEvent()

    services, summary = ServiceManager(), Summary()
    Flow(service_manager=services).add_workflows(summary=summary)
    assert services.get("summary") is summary
    for wrong in (Summary, Model()):
        with pytest.raises(WorkflowValidationError, match=r"add_workflows\(summary=\w+\): it takes instances"):
            Flow().add_workflows(summary=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["service_manager", "resource_manager"])
def test_a_manager_of_another_class_is_refused(name: str):
    with pytest.raises(WorkflowValidationError, match=f"{name}=dict: it must be a \\w+Manager, or None"):
        Summary(**{name: {}})


def test_parameters_that_get_services_are_read_in_any_order():
    class Flow(Workflow):
        @step
        async def begin(self, llm: Model, ctx: Context, ev: StartEvent, *, other: Summary, limit: int = 3) -> StopEvent:
            return StopEvent()

    config = step_table(Flow).steps["begin"]
    assert [(service.name, service.is_required) for service in config.services] == [
        ("llm", True), ("other", True), ("limit", False),
    ]  # fmt: skip
    assert config.resources == ()
    assert (config.event_parameter, config.context_parameter) == ("ev", "ctx")


def test_services_are_no_part_of_the_shape():
    class Plain(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    class Served(Workflow):
        @step
        async def begin(self, ev: StartEvent, llm: Model) -> StopEvent:
            return StopEvent()

    assert step_table(Plain).shape == step_table(Served).shape


def test_every_missing_service_is_named_with_its_steps_and_the_cure():
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent, llm: Model, summary: Summary) -> Middle:
            return Middle()

        @step
        async def end(self, ev: Middle, llm: Model, spare: Model | None = None) -> StopEvent:
            return StopEvent()

    flow = Flow()
    with pytest.raises(WorkflowValidationError, match="The following services are not available: llm, summary") as e:
        flow.validate()
    for part in ("Flow", "step 'begin' takes 'llm' (Model)", "step 'begin' takes 'summary' (Summary)",
                 "step 'end' takes 'llm' (Model)", "flow.add_workflows(llm=...)"):  # fmt: skip
        assert part in str(e.value)
    assert "spare" not in str(e.value)
    flow.add_workflows(summary=Summary(), llm=Summary())  # the annotation is for people: it is not compared
    assert flow.validate() is False


def test_validation_that_is_off_does_not_hide_a_missing_service():
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent, llm: Model) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError, match="not available: llm"):
        Flow(disable_validation=True)._durable_prepare()


def test_a_positional_only_parameter_cannot_be_given_by_name():
    with pytest.raises(WorkflowValidationError, match=r"step '.*begin' has a parameter 'llm' .*positional only.*/"):

        class Flow(Workflow):
            @step
            async def begin(self, ev: StartEvent, llm: Model, /) -> StopEvent:
                return StopEvent()


def test_steps_without_services_keep_their_call():
    program = Summary()._durable_prepare()
    assert program.injected_steps == frozenset()
    assert program.injector is None


def test_a_resource_is_no_service():
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent, llm: Annotated[Model, Resource(Model)]) -> StopEvent:
            return StopEvent()

    config = step_table(Flow).steps["begin"]
    assert config.services == ()
    assert [(found.name, found.type_annotation) for found in config.resources] == [("llm", Model)]
