"""The command line: `durable-flow COMMAND`. Parses arguments; each command has a module of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

_DEMO = """\
Review documents with a durable workflow, on SQLite and in this folder: the job runs in a process of its own, is killed
in the middle, goes on, and asks you about the doubtful documents while no process is alive. It takes a few seconds.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: those of this process) name and return the exit code."""
    options = _parser().parse_args(arguments)
    # Imported here, so that --help and wrong arguments are answered at once.
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
    return parser


def _question(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty question finds nothing; ask one")
    return text


def _folder(text: str) -> Path:
    folder = Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder; name one that exists")
    return folder
