"""`Workflow`: the class that users derive theirs from."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from .context.face import require_startable
from .engine.current import current_execution, engine_of, executing
from .errors import WorkflowValidationError
from .events import Event, StartEvent, StopEvent
from .graph import find_problems, uses_humans
from .handler import WorkflowHandler
from .injection import Injector
from .journal.journal import URL_VARIABLE, Journal
from .journal.runid import require_run_id
from .observers import RunObserver
from .program import ReplayedProgram, WorkflowProgram
from .resource import ResourceManager
from .serializers.base import MAX_PAYLOAD_BYTES, require_key
from .serializers.codec import Codec
from .serializers.json import JsonSerializer
from .service import ServiceManager
from .settings import WorkflowSettings, validated
from .signatures import StepFunction
from .start_event import passed_to_run, start_event_of
from .steps import StepTable, add_free_step, step_table

# What runs workflows is imported when one runs, and what only some programs do, fork, edit, replay and run from a
# checkpoint, where they do it: that keeps the import of the package quick.
if TYPE_CHECKING:
    from .context import Context
    from .engine.attachment import Attachment
    from .engine.beginning import Beginning
    from .engine.engine import Engine
    from .engine.execution import Execution
    from .engine.instance import InstanceRuns
    from .engine.replaying.report import ReplayReport
    from .journal.checkpoint import At, Checkpoint
    from .journal.patches import Patch
    from .records import EncodedValue
    from .serializers import Serializer


class WorkflowMeta(type):
    """For programs that derive a metaclass of their own from it, e.g. to combine it with pydantic's.

    `Workflow` itself has no metaclass: its steps are collected when a class is first used.
    """


class Workflow:
    """Base of all workflows: steps are the methods decorated with `@step`.

    One instance serves many runs, one after another and at once, from any number of event loops. Its attributes are
    shared by them and are not part of a run's state. A subclass with an `__init__` of its own calls
    `super().__init__(**kwargs)`.

    The engine uses no name of an instance that does not begin with `_durable_`, so steps and helpers of a subclass may
    be called `validate`, `events`, `run` or `_validate`.
    """

    _durable_settings: WorkflowSettings | None = None
    _durable_program: WorkflowProgram | None = None
    _durable_checked: StepTable | None = None
    _durable_by_engine: WeakKeyDictionary[Engine, InstanceRuns] | None = None

    def __init__(
        self,
        timeout: float | None = 60.0,
        disable_validation: bool = False,
        verbose: bool = False,
        resource_manager: ResourceManager | None = None,
        num_concurrent_runs: int | None = None,
        runtime: None = None,
        workflow_name: str | None = None,
        skip_graph_checks: Collection[str] | None = None,
        serializer: Serializer | None = None,
        *,
        journal: Journal | str | None = None,
        service_manager: ServiceManager | None = None,
        observers: Iterable[RunObserver] = (),
    ):
        """Set up an instance. Nothing is opened and no event loop is needed.

        Args:
            timeout: seconds of active time that a run may take; waiting for humans does not count. None: no limit.
            disable_validation: do not check the graph of steps and events before the first run.
            verbose: print and log what steps do: start and end, names of events and of the context keys they wrote.
            resource_manager: makes and keeps the resources of steps; None: one of this instance's own.
            num_concurrent_runs: how many runs of this instance are live at once in an event loop; the rest wait in
                order of their start. A run that waits within one of the same instance takes no place of its own.
            runtime: accepted for programs that pass None; durable_flow has one engine.
            workflow_name: under which runs are journaled; default is the class's `__qualname__`.
            skip_graph_checks: checks to leave out, of "reachability", "terminal_event" and "dead_end".
            serializer: how events and context values are stored; default is exact JSON.
            journal: a URL or a Journal; None: DURABLE_FLOW_DATABASE_URL, else sqlite:///durable_flow.db.
            service_manager: the services that steps may take; None: one of this instance's own.
            observers: told of every record of this instance's runs in this process, see RunObserver.

        Raises WorkflowConfigurationError if the steps accept no or several StartEvent classes, return no or several
        StopEvent classes, or take unrelated state classes, with all that is wrong with the class;
        WorkflowValidationError for an argument or a step that cannot work.
        """
        self._durable_settings = validated(
            workflow_name=workflow_name,
            default_name=type(self).__qualname__,
            timeout=timeout,
            disable_validation=disable_validation,
            verbose=verbose,
            resource_manager=resource_manager,
            service_manager=service_manager,
            num_concurrent_runs=num_concurrent_runs,
            runtime=runtime,
            skip_graph_checks=skip_graph_checks,
            serializer=serializer,
            journal=journal,
            observers=observers,
        )
        self._durable_program = _program(self, self._durable_settings, journal)

    @classmethod
    def add_step(cls, function: StepFunction) -> None:
        """Add a decorated function as a step of exactly this class, as `@step(workflow=...)` does.

        Raises WorkflowValidationError if it is not decorated, is a method, or its name is taken.
        """
        add_free_step(cls, function)

    def add_workflows(self, **workflows: Workflow) -> None:
        """Register workflows as services: a step gets one by a parameter of that name, annotated with its class.

        Raises WorkflowValidationError for anything that is no workflow instance.
        """
        services = _settings(self).service_manager
        for name, workflow in workflows.items():
            if not isinstance(workflow, Workflow):
                raise WorkflowValidationError(
                    f"add_workflows({name}={type(workflow).__name__}): it takes instances of workflows, as in "
                    f"add_workflows({name}=MyWorkflow()). Any other object is given to ServiceManager.add."
                )
            services.add(name, workflow)

    @property
    def workflow_name(self) -> str:
        """The name under which runs of this instance are journaled."""
        return _settings(self).name

    @property
    def serializer(self) -> Serializer | None:
        """The serializer that was given to this instance; None: its journal's, else exact JSON."""
        return _settings(self).serializer

    @property
    def start_event_class(self) -> type[StartEvent]:
        """The class of the event that starts a run."""
        return step_table(type(self)).start_event_class

    @property
    def stop_event_class(self) -> type[StopEvent]:
        """The class of the event that ends a run."""
        return step_table(type(self)).stop_event_class

    @property
    def events(self) -> list[type[Event]]:
        """All event classes that the steps accept or return."""
        return list(step_table(type(self)).event_classes)

    def validate(self, validate_resource_configs: bool = True, validate_resources: bool = False) -> bool:
        """Check that steps and events fit together; return whether a human is asked on the way.

        `validate_resource_configs`: the files that ResourceConfig names are read, too. `validate_resources`: every
        resource is made once and forgotten. Raises WorkflowValidationError with every problem found.
        `disable_validation=True` leaves the checks out.
        """
        program = self._durable_prepare(executing(), validate_resource_configs)
        if validate_resources and _settings(self).checked and program.injector is not None:
            program.injector.require_resources()
        return uses_humans(program.table.nodes())

    def run(
        self,
        ctx: Context[Any] | None = None,
        start_event: StartEvent | None = None,
        *,
        run_id: str | None = None,
        stepwise: bool = False,
        checkpoint_callback: Callable[..., Awaitable[None]] | None = None,
        **kwargs: Any,
    ) -> WorkflowHandler:
        """Start a run, or go on with the one that has this id; returns its handler at once.

        The keyword arguments make the StartEvent; `start_event` gives it whole. A known `run_id` resumes an
        unfinished run, attaches to a live one, and gives the recorded outcome of a finished one without running a step;
        arguments other than those it was started with are a RunConflictError, raised by awaiting the handler.

        `ctx` is the Context that the run begins with and that `handler.ctx` then is: a new one (`Context(flow)`) with
        the values that were put in, or that of a run that has ended, with the same objects. One that
        `Context.from_dict` made of an unfinished run goes on with the pending work of that one, as a new run: no start
        event is sent, and arguments are dropped with a warning. A run of a known `run_id` must have begun with the same
        values, or `ctx` be empty.

        Within a step it starts a child: a run that the step finds again when it runs again, and that is cancelled if
        it is unfinished when the step's run ends. With a `run_id` it is independent of that. A workflow without a
        journal of its own keeps it in the parent's.

        `stepwise`: in this process nothing starts before `await handler.run_step()`, and then what is pending.

        `checkpoint_callback`: awaited for each step that completes in this process, once that is durable and before
        anything that follows from it starts; the run's end waits for it, too. What it raises stops the run in this
        process and is raised by awaiting the handler; the run can be resumed. See CheckpointCallback.

        Raises RuntimeError without a running event loop, WorkflowValidationError, WorkflowRuntimeError and ValueError
        for arguments that make no StartEvent, RunIdError, and ContextStateError for a Context whose run has not ended.
        """
        parent = executing()
        engine = self._durable_engine(parent)
        program = self._durable_prepare(parent)
        if run_id is not None:
            require_run_id(run_id)
        on_completion = None
        if checkpoint_callback is not None:
            from .going_back import calling

            on_completion = calling(program, checkpoint_callback)
        if ctx is not None:
            handler = self._durable_run_with(parent, engine, program, ctx, start_event, run_id, kwargs, stepwise)
        else:
            event = start_event_of(type(self), start_event, kwargs)
            passed = passed_to_run(program, event, start_event, kwargs)
            attachment = self._durable_start(parent, engine, program, run_id, event, passed, None, stepwise)
            handler = WorkflowHandler(attachment, program.table.state_class)
        if on_completion is not None:
            handler._attachment.call_back(on_completion)
        return handler

    def run_from(
        self,
        checkpoint: Checkpoint,
        ctx_serializer: Serializer | None = None,
        checkpoint_callback: Callable[..., Awaitable[None]] | None = None,
        *,
        run_id: str | None = None,
        stepwise: bool = False,
        **kwargs: Any,
    ) -> WorkflowHandler:
        """Begin a new run that goes on from a checkpoint; returns its handler at once.

        It is a fork: what was pending at the checkpoint goes on, on today's code. A changed `output_event` takes the
        place of what the checkpoint's step returned, changed values in `ctx_state` that of the recorded ones. The
        checkpoint may be of a run of any process. If this journal does not have its run, the new one begins with
        what `ctx_state` holds. From the completion that ended its run the new run ends with the same event.
        In a step it starts no child: a step that runs again begins another run.

        Args:
            checkpoint: one of `WorkflowCheckpointer`, `Journal.checkpoints` or `Checkpoint.from_dict`.
            ctx_serializer: the one that wrote `ctx_state`; None: as the journal's values.
            checkpoint_callback: as in `run`.
            run_id: that of the new run; None: a new one.
            stepwise: as in `run`.
            kwargs: dropped with a warning; no start event is sent.

        Raises CheckpointError for what is no Checkpoint and ContextSerdeError for a `ctx_state` that cannot be read;
        awaiting the handler raises CheckpointError, RunConflictError if there is a run `run_id` or the checkpoint's run
        is of another workflow, StateEditError and SerializationError.
        """
        from .going_back import run_from

        parent = executing()
        program, engine = self._durable_prepare(parent), self._durable_engine(parent)
        attachment = run_from(
            engine, program, checkpoint, ctx_serializer, checkpoint_callback, run_id, stepwise, kwargs
        )
        self._durable_runs(engine).add(attachment)
        return WorkflowHandler(attachment, program.table.state_class)

    def submit_run(self, *args: Any, **kwargs: Any) -> WorkflowHandler:
        """Return `run(...)`."""
        return self.run(*args, **kwargs)

    def run_sync(self, *args: Any, **kwargs: Any) -> Any:
        """Run to the end and return the result, without an event loop; the arguments are those of `run`.

        In a plain `def` step it runs a child, as `await flow.run()` does in an async one. Raises what awaiting the run
        raises, and RuntimeError where an event loop runs.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError(
                f"run_sync of workflow {type(self).__qualname__} was called where an event loop runs, and would block "
                "it: use `await flow.run(...)`"
            )

        async def result() -> Any:
            return await Workflow.run(self, *args, **kwargs)

        thread = current_execution.get()
        if thread is not None:
            from .engine.threads import FromThread

            if isinstance(thread, FromThread):
                return thread.in_step(result)
        return asyncio.run(result())

    async def stream_events(self) -> AsyncGenerator[Event, None]:
        """Yield what the only active run of this instance publishes, without the event that ends it.

        Without an active run the next one is waited for, 5 seconds at most; then a warning is logged and nothing is
        yielded. Raises WorkflowRuntimeError if several runs are active: use `handler.stream_events()`.
        """
        attachment = await self._durable_runs(self._durable_engine(executing())).next_active("stream_events")
        if attachment is None:
            return
        async with aclosing(WorkflowHandler(attachment).stream_events()) as events:
            async for event in events:
                if not isinstance(event, StopEvent):
                    yield event

    def send_event(self, message: Event, step: str | None = None) -> None:
        """Send an event to the only active run of this instance: in order, not yet durable.

        Without an active run the next one gets it, if it is started within 5 seconds; else a warning is logged. Raises
        WorkflowRuntimeError if several runs are active (use `handler.send_event`), or no step takes the event so.
        """
        self._durable_runs(self._durable_engine(executing())).send_soon(message, step)

    async def resume(self, run_id: str) -> WorkflowHandler:
        """Go on with an unfinished run without repeating its arguments, also with one that needs attention.

        A finished run is not run again: its handler gives the recorded outcome. Raises RunNotFoundError,
        RunConflictError if it is of another workflow, RunIdError.
        """
        parent = executing()
        program = self._durable_prepare(parent)
        attachment = await self._durable_engine(parent).continuing.resume(program, require_run_id(run_id))
        return WorkflowHandler(attachment, program.table.state_class)

    async def retry(self, run_id: str) -> WorkflowHandler:
        """Run the pending work of a failed or timed-out run again; what had completed is kept.

        Raises RunNotFoundError, RunConflictError, and WorkflowRuntimeError for a run of another status.
        """
        parent = executing()
        program = self._durable_prepare(parent)
        attachment = await self._durable_engine(parent).continuing.retry(program, require_run_id(run_id))
        return WorkflowHandler(attachment, program.table.state_class)

    async def fork(
        self,
        run_id: str,
        at: At | None = None,
        *,
        new_run_id: str | None = None,
        set: Mapping[str, Any] | None = None,
        patch: Patch | None = None,
        event: Event | None = None,
        drop_pending: bool = False,
    ) -> WorkflowHandler:
        """Begin a new run with the state that a run of this workflow had at a checkpoint; returns its handler.

        The other run is not touched, and may be live. What was pending at the checkpoint goes on here, on today's code:
        running steps begin anew, recorded calls are not repeated, open questions keep their wait ids, timers and
        deadlines their times. Effects of the new run have idempotency keys of its own.

        Args:
            run_id: the run to fork.
            at: a Checkpoint or its id, a seq, a name given by `ctx.checkpoint`, or an aware time (the last checkpoint
                up to it). None: where the run stands now. A run that failed there goes on as `retry` would.
            new_run_id: that of the new run; None: a new one.
            set: context values to change, by key.
            patch: a JSON Patch (RFC 6902) of the context, applied after `set`; see `Journal.diff` for the JSON form.
            event: takes the place of the events with which the checkpoint's step completed (at the start: of the start
                event). At any other checkpoint it is pending beside what was pending.
            drop_pending: everything else that was pending is given up; the context stays. Needs `event`.

        Raises RunNotFoundError, RunConflictError if there is a run `new_run_id` or the run is of another workflow,
        CheckpointError, StateEditError, SerializationError, and AlreadyAnsweredError for an answer without a question.
        """
        from .going_back import fork

        parent = executing()
        program, engine = self._durable_prepare(parent), self._durable_engine(parent)
        attachment = await fork(engine, program, run_id, at, new_run_id, set, patch, event, drop_pending)
        self._durable_runs(engine).add(attachment)
        return WorkflowHandler(attachment, program.table.state_class)

    async def edit(
        self, run_id: str, *, set: Mapping[str, Any] | None = None, patch: Patch | None = None, by: str = "flow.edit"
    ) -> str:
        """Change the context of a run that nobody has at the moment; return the id of the checkpoint that this makes.

        For a run that waits, failed, timed out or needs attention; `resume` or `retry` then goes on with it. `set` and
        `patch` are as in `fork`; `by` says in the journal who did it. It is one append: done whole or not at all.

        Raises RunNotFoundError, RunConflictError for a run whose owner lives (fork it instead), RunFinishedError for
        one that completed or was cancelled, StateEditError and SerializationError.
        """
        from .going_back import edit

        parent = executing()
        program = self._durable_prepare(parent)
        return await edit(self._durable_engine(parent), program, run_id, set, patch, by)

    async def replay(
        self,
        run_id: str,
        to: At | None = None,
        live: Collection[str] = (),
        skip: Collection[str] = (),
        ignore: Collection[str] = (),
    ) -> ReplayReport:
        """Run today's code of each step that a run has completed, and report what it does differently.

        Each step gets its recorded event and the context as it was; what it does is compared with the records, and goes
        nowhere: neither the run, which may be live, nor its database is touched. `ctx.call`, waits, timers and runs
        that steps start return their records. Code outside of them does run, also if it reaches the outside world:
        leave such steps out by `skip`. See docs/replay.md.

        Args:
            run_id: a run of this workflow, in whatever state, begun with whatever version of its code.
            to: up to where: a Checkpoint or its id, a seq, a name given by `ctx.checkpoint`, or an aware time.
            live: names of steps whose calls really are made, and the runs that they start really run, in memory.
            skip: names of steps that are not run.
            ignore: patterns (as of fnmatch) of what may differ: "Scored.at", "*.timestamp", a context key "totals.*".

        Raises RunNotFoundError, RunConflictError if the run is of another workflow, CheckpointError,
        WorkflowStepDoesNotExistError for an unknown name in `live` or `skip`, and DeserializationError for a record
        that cannot be read. What a step raises is in the report.
        """
        from .engine.replaying.replay import ReplayRequest, replay_stored

        parent = executing()
        program = ReplayedProgram(self._durable_prepare(parent))
        settings = self._durable_engine(parent).settings if parent is not None else _journal(program.journal).settings
        return await replay_stored(settings, program, require_run_id(run_id), ReplayRequest(to, live, skip, ignore))

    async def recover(self) -> list[WorkflowHandler]:
        """Take up every claimable unfinished run of this workflow: nobody's or of a dead process, with work to do.

        Returns at once, unless an owner that cannot be looked at has stopped beating: that one is watched until it
        beats again or its expiry is over.
        """
        parent = executing()
        program = self._durable_prepare(parent)
        attachments = await self._durable_engine(parent).continuing.recover(program)
        return [WorkflowHandler(attachment, program.table.state_class) for attachment in attachments]

    def _durable_run_with(
        self,
        parent: Execution | None,
        engine: Engine,
        program: WorkflowProgram,
        ctx: Context[Any],
        start_event: StartEvent | None,
        run_id: str | None,
        arguments: Mapping[str, Any],
        stepwise: bool,
    ) -> WorkflowHandler:
        """Start a run with a Context."""
        face, beginning = require_startable(ctx, run_id)
        if beginning is not None and beginning.unfinished is not None:
            if dropped := [*arguments, *(["start_event"] if start_event is not None else [])]:
                warnings.warn(
                    "run() goes on with the unfinished work of the Context and sends no start event; "
                    f"{', '.join(dropped)} will be dropped",
                    stacklevel=3,
                )
            event: StartEvent | None = None
            passed = program.codec.encode_value({}, "arguments of run()")
        else:
            event = start_event_of(type(self), start_event, arguments)
            passed = passed_to_run(program, event, start_event, arguments)
        attachment = self._durable_start(parent, engine, program, run_id, event, passed, beginning, stepwise)
        if beginning is not None or face.is_running:
            face.belong_to(attachment)
        return WorkflowHandler(attachment, program.table.state_class, ctx)

    def _durable_start(
        self,
        parent: Execution | None,
        engine: Engine,
        program: WorkflowProgram,
        run_id: str | None,
        event: StartEvent | None,
        arguments: EncodedValue,
        beginning: Beginning | None,
        stepwise: bool,
    ) -> Attachment:
        """Start a run, as a child of the step in which this is called."""
        if parent is not None:
            from .engine.children import start_child

            attachment: Attachment = start_child(parent, engine, program, run_id, event, arguments, beginning)
            attachment.stepwise = stepwise
        else:
            attachment = engine.starting.start(program, run_id, event, arguments, beginning, stepwise=stepwise)
        self._durable_runs(engine).add(attachment)
        return attachment

    def _durable_program_now(self, parent: Execution | None = None) -> WorkflowProgram:
        """Return the program of the steps as they are now, whether they fit together or not.

        Its journal is that of `parent`, the step in which this is called, if the workflow has none of its own.
        """
        settings, program = _settings(self), self._durable_program
        table = step_table(type(self))
        journal = settings.journal
        if parent is not None and journal is None:
            journal = cast("WorkflowProgram", parent.run.program).journal
        if program is None or program.table is not table or program.journal is not journal:
            program = self._durable_program = _program(self, settings, journal)
        return program

    def _durable_runs(self, engine: Engine) -> InstanceRuns:
        """Return the runs of this instance that the engine has."""
        if self._durable_by_engine is None:
            self._durable_by_engine = WeakKeyDictionary()
        runs = self._durable_by_engine.get(engine)
        if runs is None:
            from .engine.instance import InstanceRuns

            runs = self._durable_by_engine[engine] = InstanceRuns(self, engine)
        return runs

    def _durable_engine(self, parent: Execution | None = None) -> Engine:
        """Return the running loop's engine for this workflow's journal; without one for that of the parent's step."""
        from .engine.engine import EngineSettings, engine_for

        own = _settings(self).journal
        if parent is not None and own is None:
            return engine_of(parent)
        journal = _journal(own)
        options = EngineSettings(
            idle_release_seconds=journal.idle_release_seconds,
            max_suspended_steps=journal.max_suspended_steps,
            heartbeat_seconds=journal.heartbeat_seconds,
            expiry_seconds=journal.expiry_seconds,
        )
        if parent is not None:
            return engine_of(parent).beside(journal.settings, options)
        return engine_for(journal.settings, options)

    def _durable_prepare(
        self, parent: Execution | None = None, validate_resource_configs: bool = True
    ) -> WorkflowProgram:
        """Return the program for a new run: that of the steps as they are now, checked once.

        Raises WorkflowValidationError with every problem of the graph, if a service or the file of a resource is
        missing, or if `super().__init__()` was not called.
        """
        settings, program = _settings(self), self._durable_program_now(parent)
        table = program.table
        if settings.checked and self._durable_checked is not table:
            problems = find_problems(table.nodes(), table.start_event_class, settings.skip_graph_checks)
            problems += table.recovery_problems()
            if problems:
                listed = "".join(f"\n  - {problem}" for problem in problems)
                raise WorkflowValidationError(f"workflow {type(self).__qualname__} cannot run:{listed}")
            if program.injector is not None and validate_resource_configs:
                program.injector.require_configs()
            if program.injector is None or validate_resource_configs:
                self._durable_checked = table
        if program.injector is not None:
            program.injector.require_services(type(self).__qualname__)
        return program


@lru_cache(maxsize=64)
def _journal_at(url: str | None, environment: str | None, folder: str) -> Journal:
    # The environment and the folder are what a missing or relative URL means.
    return Journal(url)


def _journal(journal: Journal | str | None) -> Journal:
    if isinstance(journal, Journal):
        return journal
    return _journal_at(journal, os.environ.get(URL_VARIABLE), os.getcwd())


def _settings(workflow: Workflow) -> WorkflowSettings:
    if workflow._durable_settings is None:
        raise WorkflowValidationError(
            f"{type(workflow).__qualname__}.__init__ has not called super().__init__(). Call it, and pass on the "
            "keyword arguments: super().__init__(**kwargs)."
        )
    return workflow._durable_settings


def _program(workflow: Workflow, settings: WorkflowSettings, where: Journal | str | None) -> WorkflowProgram:
    table = step_table(type(workflow))
    state = () if table.state_class is None else (table.state_class,)
    # An event or state class may be among the local ones, too, if another names it.
    types = dict.fromkeys((*table.event_classes, *state, *table.local_classes))
    exact = JsonSerializer(types=types)
    journal = where if isinstance(where, Journal) else None
    serializer = require_key(settings.serializer) or (journal.serializer if journal is not None else None) or exact
    limit = journal.max_payload_bytes if journal is not None else MAX_PAYLOAD_BYTES
    for cls in table.event_classes:
        require_key(cls.event_serializer)
    # Messages are always JSON.
    readers = (*(journal.readers if journal is not None else ()), exact)
    codec = Codec(serializer, readers=readers, max_payload_bytes=limit, per_class=True)
    injector = Injector(table.steps.values(), settings.service_manager, settings.resource_manager)
    return WorkflowProgram(
        workflow, table, codec, name=settings.name, timeout=settings.timeout, verbose=settings.verbose, journal=where,
        injector=injector if injector.steps else None, observers=settings.observers,
        limit=settings.limit,
    )  # fmt: skip
