"""The command line: `durable-flow COMMAND`. Parses arguments; each command has a module of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

_DEMO = """\
Review documents with a durable workflow, on SQLite and in this folder: the job runs in a process of its own, is killed
in the middle, goes on, and asks you about the doubtful documents while no process is alive. It takes a few seconds.
"""
_UPGRADE = """\
Create the tables of a journal in a database, or bring older ones to the schema of this version of durable_flow: all of
it or nothing. Several may do so at once. Runs may go on meanwhile; those that meet a locked table wait for it.
"""
_CURRENT = "Print the schema version that the database has, or `none`. Nothing is changed or created."
_CHECK = """\
Say whether the database has the schema that this version of durable_flow needs, for instance before a new version is
rolled out. Exit code 0 if so, 1 if not. Nothing is changed or created.
"""
_SQL = """\
Print the SQL that creates the tables in an empty database, for somebody who runs it by other means (`psql -f`). Nothing
is connected to: of the URL only the kind of database counts.
"""
_DB = """\
Look after the tables of a journal. SQLite files are created and upgraded by whoever opens them; a Postgres database is
not: run `durable-flow db upgrade` before its first use and after each new version of this package that says so.
"""
_DB_COMMANDS = {
    "upgrade": ("create the tables, or bring them to this version's schema", _UPGRADE),
    "current": ("print the schema version of the database", _CURRENT),
    "check": ("tell whether the database is up to date; exit code 1 if not", _CHECK),
    "sql": ("print the SQL that creates the tables, without connecting", _SQL),
}
_AT = "a checkpoint: its id (RUN_ID/SEQ), a seq, or a name given by ctx.checkpoint"
_CHECKPOINT_COMMANDS = {
    "checkpoints": "list the checkpoints of a run",
    "diff": "print what changed in a run's context between two checkpoints, as a JSON Patch",
    "blame": "tell which steps changed a key of a run's context",
    "fork": "make a new run that goes on from a checkpoint; it runs when a worker takes it up",
}

_KEYS = """\
Keys come by the environment, never as arguments. DURABLE_FLOW_SEAL_KEYS: those of an encrypted journal's
EncryptedSeal, separated by commas or blanks, the one that writes first. DURABLE_FLOW_SERIALIZER_KEY: the one of a
journal with pickles.
"""
_EXPORT = """\
Write all that is recorded of a run to FILE: JSON lines with a hash chain, compressed if the name ends in .gz. The run
is not disturbed. It is not encrypted unless the journal is. Runs that it started are not in it: export them as well.
"""
_IMPORT = """\
Make the run of an archive one of this database: all of it or nothing, and only if the archive is whole. It is the same
run with the same idempotency keys, so only one of the two may go on: cancel the other, or leave it as it is.
"""

_COMPACT = """\
Let one record, which holds the state, take the place of all records of a run before a checkpoint. The run goes on as
before; checkpoints before that one are gone. The file of an SQLite database keeps its size until you VACUUM it.
"""
_PRUNE = """\
Forget the runs that ended long ago: their records, streams and messages. How each ended, and its result, is kept unless
--drop-results says otherwise. Runs that have not ended are never touched. If it is interrupted, the next one goes on.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: those of this process) name and return the exit code."""
    options = _parser().parse_args(arguments)
    # Imported here, so that --help and wrong arguments are answered at once.
    if options.command == "db":
        from .db import run

        return run(options.db_command, options.url)
    if options.command == "export":
        from .archives import export

        return export(options)
    if options.command == "import":
        from .archives import import_

        return import_(options)
    if options.command in ("compact", "prune"):
        from .retention import run as run_retention

        return run_retention(options)
    if options.command in _CHECKPOINT_COMMANDS:
        from .checkpoints import run as run_checkpoints

        return run_checkpoints(options)
    from .demo import Demo

    return Demo(question=options.question, corpus=options.corpus, answer=options.answer, yes=options.yes).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="durable-flow", description="Durable workflows backed by a SQL journal.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="see a job survive a kill, on real text", description=_DEMO)
    demo.add_argument("--question", type=_question, metavar="TEXT", help="what the documents are searched for")
    demo.add_argument(
        "--corpus",
        type=_folder,
        metavar="FOLDER",
        help="review your own .txt, .md, .rst and .py files instead of the language reference that Python ships",
    )
    answers = demo.add_mutually_exclusive_group()
    answers.add_argument("--yes", action="store_true", help="answer every question with yes")
    answers.add_argument("--answer", choices=["yes", "no"], help="answer the question that is open, then go on")
    _add_db(commands)
    _add_archives(commands)
    _add_checkpoints(commands)
    _add_retention(commands)
    return parser


def _add_checkpoints(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    made = {}
    for name, summary in _CHECKPOINT_COMMANDS.items():
        made[name] = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        made[name].add_argument("run_id", metavar="RUN_ID")
        _add_journal(made[name])
    made["diff"].add_argument("a", metavar="A", help=_AT)
    made["diff"].add_argument("b", metavar="B", nargs="?", help="another one; default: now")
    made["blame"].add_argument("key", metavar="KEY")
    made["fork"].add_argument("at", metavar="CHECKPOINT", nargs="?", help=f"{_AT}; default: now")
    made["fork"].add_argument("--new-run-id", metavar="ID", help="default: a new one")
    made["fork"].add_argument(
        "--set", metavar="KEY=JSON", action="append", default=[], help="a context value to change; may be repeated"
    )


def _add_db(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    db = commands.add_parser("db", help="create, upgrade and check a journal's tables", description=_DB)
    kinds = db.add_subparsers(dest="db_command", required=True, metavar="COMMAND")
    for name, (summary, description) in _DB_COMMANDS.items():
        command = kinds.add_parser(name, help=summary, description=description)
        _add_url(command)


def _add_archives(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser("export", help="write a run to a file", description=_EXPORT)
    export.add_argument("run_id", metavar="RUN_ID", help="the run")
    export.add_argument("file", metavar="FILE", help="the archive; what stood there is replaced when it is complete")
    _add_journal(export)
    importing = commands.add_parser("import", help="read a run from a file", description=_IMPORT)
    importing.add_argument("file", metavar="FILE", help="the archive")
    importing.add_argument("--run-id", metavar="RUN_ID", help="the run's id here; default: the one that it had")
    importing.add_argument(
        "--allow-codec",
        action="append",
        default=[],
        metavar="CODEC",
        help="accept data of this codec, too, as pickle: whoever wrote them may run code where they are read",
    )
    _add_journal(importing)


def _add_journal(command: argparse.ArgumentParser) -> None:
    _add_url(command)
    command.epilog = _KEYS
    command.add_argument(
        "--allow-plaintext",
        action="store_true",
        help="read what is not encrypted, too, of a journal that was begun without encryption",
    )


def _add_retention(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compact = commands.add_parser(
        "compact", help="let one record stand for the older ones of a run", description=_COMPACT
    )
    compact.add_argument("run_id", metavar="RUN_ID", help="the run; it may be live")
    compact.add_argument("--before", metavar="CHECKPOINT", help=f"{_AT}; default: the newest one")
    _add_journal(compact)
    prune = commands.add_parser("prune", help="forget runs that ended long ago", description=_PRUNE)
    prune.add_argument(
        "--older-than",
        type=_long_ago,
        required=True,
        metavar="TIME",
        help="how long ago a run must have ended, as 30d, 12h, 45m, 8w or 0s; or a time as 2026-01-31T00:00:00+00:00",
    )
    prune.add_argument(
        "--status", action="append", choices=_ENDS, help="only runs that ended so; may be repeated; default: any"
    )
    prune.add_argument("--drop-results", action="store_true", help="keep nothing of a run, not even how it ended")
    prune.add_argument("--dry-run", action="store_true", help="only tell what would go")
    _add_journal(prune)


def _add_url(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--url",
        help="the journal's database, e.g. postgresql://user@host/database; default: the environment's "
        "DURABLE_FLOW_DATABASE_URL (which keeps a password out of the list of processes), else "
        "sqlite:///durable_flow.db",
    )


def _long_ago(text: str) -> timedelta | datetime:
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isascii() and number.isdigit():
        with suppress(OverflowError):
            return timedelta(**{_UNITS[unit]: int(number)})
    time = None
    with suppress(ValueError):
        time = datetime.fromisoformat(text)
    if time is None or time.utcoffset() is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither as 30d (w, d, h, m, s) nor a time with its zone")
    return time


_ENDS = ("completed", "failed", "timed_out", "cancelled", "terminated")
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def _question(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty question finds nothing; ask one")
    return text


def _folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder; name one that exists")
    return folder
