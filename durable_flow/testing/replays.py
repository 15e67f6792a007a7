"""`assert_replays`: a regression test of a workflow's code against the history of a run."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import BinaryIO

from .. import Journal, ReplayReport, RunInfo, Seal, Workflow, WorkflowHandler
from ..engine.replaying.replay import ReplayRequest, replay_archive
from ..errors import RunNotFoundError
from ..journal.checkpoint import At
from ..program import ReplayedProgram
from ..serializers.base import MAX_PAYLOAD_BYTES


async def assert_replays(
    flow: Workflow,
    run_or_export: str | RunInfo | WorkflowHandler | os.PathLike[str] | BinaryIO,
    to: At | None = None,
    live: Collection[str] = (),
    skip: Collection[str] = (),
    ignore: Collection[str] = (),
    *,
    seal: Seal | None = None,
    allow_codecs: Collection[str] = (),
) -> ReplayReport:
    """Replay a run against the code of `flow`, and raise AssertionError, with the report, if a step does otherwise.

    Returns the report if none does. `to`, `live`, `skip` and `ignore` are as for `Workflow.replay`.

    Args:
        flow: the workflow as it is now.
        run_or_export: a run of the flow's journal, by its id, its RunInfo or its handler; or an archive that
            `journal.export` wrote: a `pathlib.Path`, a text with a slash in it or ".jsonl" at its end, or a file
            opened for bytes. For an archive no journal is opened.
        seal: opens a sealed archive; None: the seal of the flow's journal.
        allow_codecs: as for `Journal.import_`: further codecs, as "pickle", whose data are accepted.

    Raises AssertionError; what `Workflow.replay` raises; and for an archive ArchiveError, OSError.
    """
    if not isinstance(flow, Workflow):
        raise TypeError(f"assert_replays takes a workflow object, as MyFlow(), not {flow!r}")
    request = ReplayRequest(to, live, skip, ignore)
    file = _archive(run_or_export)
    if file is not None:
        program = ReplayedProgram(flow._durable_prepare())
        journal = program.journal if isinstance(program.journal, Journal) else None
        report = await replay_archive(
            file, program, request,
            seal=seal or (None if journal is None else journal.settings.seal), allow_codecs=allow_codecs,
            max_payload_bytes=MAX_PAYLOAD_BYTES if journal is None else journal.max_payload_bytes,
        )  # fmt: skip
    else:
        run_id = run_or_export if isinstance(run_or_export, str) else getattr(run_or_export, "run_id", None)
        if run_id is None:
            raise TypeError(
                f"assert_replays takes a run id, a RunInfo, a handler or the path of an archive, not {run_or_export!r}"
            )
        try:
            report = await flow.replay(run_id, to, live, skip, ignore)
        except RunNotFoundError as error:
            if os.path.isfile(run_id):  # noqa: ASYNC240
                error.add_note(f"There is a file {run_id}. If that is the archive you mean, pass Path({run_id!r})")
            raise
    if not report.ok:
        raise AssertionError(str(report))
    return report


def _archive(given: object) -> str | os.PathLike[str] | BinaryIO | None:
    """Return what is an archive. No run id has a slash in it; a run that is named as files are has its RunInfo."""
    is_path = isinstance(given, os.PathLike) or (
        isinstance(given, str) and ("/" in given or os.sep in given or given.endswith(".jsonl"))
    )
    return given if is_path or hasattr(given, "read") else None  # type: ignore[return-value]
