"""Find the documents that answer a question, ask a human about the doubtful ones, write a report.

    python examples/document_review.py --run-id review-1 --question "What does a with statement do?"

Kill this script wherever you like and run the same line again: it goes on where it stopped. When it needs a human, it
prints the question and ends; the question stays in the journal. Any process can answer it, also while this one is gone:

    async with Journal("sqlite:///durable-flow-demo/journal.db") as journal:
        await journal.send("review-1", Approval(response="yes"))

Then the same line again. `durable-flow demo` does all of this with this very file, and kills it in between.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import math
import os
import re
import textwrap
from collections import Counter
from pathlib import Path

from durable_flow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Journal,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)

FOLDER = "durable-flow-demo"
QUESTION = "How do I write a context manager for the with statement?"
MOST_QUESTIONS = 3
LOW = 0.6  # a score below this share of the best one is doubtful


# Events: what the steps hand to each other. Each is written to the journal before the next step sees it.


class ReviewStart(StartEvent):
    question: str
    corpus: str


class Search(Event):
    source: str
    terms: list[str]
    limit: int


class Found(Event):
    source: str
    titles: list[str]


class Candidate(Event):
    title: str
    terms: list[str]
    of: int  # how many candidates there are, so that the join knows when it has all


class Scored(Event):
    title: str
    score: float
    excerpt: str
    of: int


class Ranked(Event):
    kept: list[Scored]
    doubtful: list[Scored]
    left_out: list[str]


class ApprovalNeeded(InputRequiredEvent):
    title: str
    score: float
    best: float
    excerpt: str
    number: int
    of: int


class Approval(HumanResponseEvent):
    response: str  # "yes" or "no"


class Reviewed(Event):
    kept: list[Scored]
    approved: list[str]
    left_out: list[str]


# The workflow. Which step runs next follows from the types: a step gets the events that its signature names.


class DocumentReview(Workflow):
    """One instance reviews with one library; nothing of it is in the journal, only what the steps emit and store."""

    def __init__(self, library: Library, report: Path, side_file: Path, journal: str) -> None:
        super().__init__(journal=journal, timeout=120)
        self.library = library
        self.report = report
        self.side_file = side_file

    def note(self, step_name: str, event: Event) -> None:
        """Leave a trace outside of the journal, so that anybody can count how often each step body really ran."""
        with self.side_file.open("a", encoding="utf-8") as lines:
            lines.write(f"{step_name}\t{subject(event)}\n")

    @step
    async def classify(self, ctx: Context, ev: ReviewStart) -> list[Search]:
        """What kind of question is it, and how deep is each source searched for it? A returned list fans out."""
        self.note("classify", ev)
        kind = classify(ev.question)
        await ctx.store.set("question", ev.question)
        await ctx.store.set("kind", kind)
        terms = sorted(set(words(ev.question)))
        return [Search(source=source, terms=terms, limit=limit) for source, limit in DEPTH[kind].items()]

    @step
    async def gather(self, ev: Search) -> Found:
        """Runs once for each source, all at the same time."""
        self.note("gather", ev)
        await asyncio.sleep(0.05)  # stands for a search service
        return Found(source=ev.source, titles=self.library.search(ev.source, ev.terms, ev.limit))

    @step
    async def select(self, ctx: Context, ev: Found) -> list[Candidate] | Ranked | None:
        """Joins the sources: `collect_events` gives None until it has all of them."""
        self.note("select", ev)
        found = ctx.collect_events(ev, [Found] * len(SOURCES))
        if found is None:
            return None
        titles = sorted({title for event in found for title in event.titles})
        if not titles:
            return Ranked(kept=[], doubtful=[], left_out=[])
        terms = sorted(set(words(await ctx.store.get("question"))))
        return [Candidate(title=title, terms=terms, of=len(titles)) for title in titles]

    @step(num_workers=4)
    async def score(self, ev: Candidate) -> Scored:
        """The expensive part, four at a time. A score that is in the journal is never computed again."""
        self.note("score", ev)
        await asyncio.sleep(0.2)  # stands for a call that costs money
        score = self.library.score(ev.title, ev.terms)
        return Scored(title=ev.title, score=score, excerpt=self.library.excerpt(ev.title, ev.terms), of=ev.of)

    @step
    async def rank(self, ctx: Context, ev: Scored) -> Ranked | None:
        """Joins the scores, and tells the good ones from those that a human should look at."""
        self.note("rank", ev)
        scored = ctx.collect_events(ev, [Scored] * ev.of)
        if scored is None:
            return None
        scored.sort(key=lambda one: (-one.score, one.title))
        kept = [one for one in scored if one.score >= LOW * scored[0].score]
        low = scored[len(kept) :]
        return Ranked(kept=kept, doubtful=low[:MOST_QUESTIONS], left_out=[one.title for one in low[MOST_QUESTIONS:]])

    @step
    async def ask_human(self, ctx: Context, ev: Ranked | Approval) -> ApprovalNeeded | Reviewed:
        """Asks one question after the other. While one is open no process is needed: the answer finds the run."""
        self.note("ask_human", ev)
        if isinstance(ev, Ranked):
            await ctx.store.set("ranked", ev)
            await ctx.store.set("answers", [])
        ranked: Ranked = await ctx.store.get("ranked")
        answers: list[str] = await ctx.store.get("answers")
        if isinstance(ev, Approval):
            answers = [*answers, ev.response]
            await ctx.store.set("answers", answers)
        if len(answers) < len(ranked.doubtful):
            asked = ranked.doubtful[len(answers)]
            return ApprovalNeeded(
                title=asked.title,
                score=asked.score,
                best=ranked.kept[0].score,
                excerpt=asked.excerpt,
                number=len(answers) + 1,
                of=len(ranked.doubtful),
            )
        approved = [one for one, answer in zip(ranked.doubtful, answers, strict=True) if answer == "yes"]
        refused = [one.title for one in ranked.doubtful if one not in approved]
        return Reviewed(
            kept=ranked.kept + approved,
            approved=[one.title for one in approved],
            left_out=refused + ranked.left_out,
        )

    @step
    async def write_report(self, ctx: Context, ev: Reviewed) -> StopEvent:
        """Written beside and renamed, because a step that was killed before its end runs again."""
        self.note("write_report", ev)
        text = markdown(await ctx.store.get("question"), await ctx.store.get("kind"), ev)
        draft = self.report.with_suffix(".draft")
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.report)
        return StopEvent(result=str(self.report))


def subject(event: Event) -> str:
    """Return what an event is about, in one line."""
    return " ".join(str(event.get("title") or event.get("source") or type(event).__name__).split())


# The library: documents, where to look for words in them, and BM25.

SOURCES = ("titles", "openings", "text")
DEPTH = {
    "definition": {"titles": 10, "openings": 10, "text": 6},
    "how-to": {"titles": 6, "openings": 8, "text": 12},
    "open": {"titles": 8, "openings": 8, "text": 8},
}
ENDINGS = {".txt", ".md", ".rst", ".py"}
STOP_WORDS = {
    "a", "an", "and", "are", "can", "did", "do", "does", "how", "i", "in", "is", "it", "of", "on", "or", "the", "to",
    "was", "what", "when", "where", "which", "who", "why", "you",
}  # fmt: skip


def words(text: str) -> list[str]:
    """Return the words that count, in lower case and without a plural s."""
    found = [word for word in re.findall(r"[^\W_]+", text.lower()) if word not in STOP_WORDS]
    return [word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word for word in found]


def classify(question: str) -> str:
    """Return the kind of a question: definition, how-to or open."""
    first = question.lower().split(maxsplit=2)[:2]
    if first in (["what", "is"], ["what", "are"], ["what", "does"]):
        return "definition"
    return "how-to" if first[:1] == ["how"] else "open"


def read_corpus(corpus: str, leave_out: Path) -> dict[str, str]:
    """Return title and text of the documents in a folder; for "" the language reference that comes with Python."""
    if corpus:
        folder = Path(corpus)
        paths = [path for path in sorted(folder.rglob("*")) if path.suffix in ENDINGS and path.is_file()]
        visible = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
        # Names that are no UTF-8 cannot be stored; the reports of earlier runs are no sources.
        return {
            str(path.relative_to(folder)).encode("utf-8", "replace").decode(): path.read_text("utf-8", "replace")
            for path in visible
            if leave_out.resolve() not in path.resolve().parents
        }
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some distributions leave it out
        modules = {path.stem: path.read_text("utf-8", "replace") for path in Path(os.__file__).parent.glob("*.py")}
        docs = {name: ast.get_docstring(ast.parse(source)) for name, source in sorted(modules.items())}
        return {name: doc for name, doc in docs.items() if doc}
    return dict(topics)


class Library:
    """Documents by title, with the statistics that BM25 needs."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts
        self.counts = {title: Counter(words(f"{title} {text}")) for title, text in texts.items()}
        self.spread = Counter(word for counts in self.counts.values() for word in counts)
        self.mean_length = sum(counts.total() for counts in self.counts.values()) / max(1, len(texts))

    def search(self, source: str, terms: list[str], limit: int) -> list[str]:
        """Return the titles with the most different terms in that part of the document, best first."""
        hits = []
        for title, text in self.texts.items():
            part = {"titles": title, "openings": text[:600], "text": text}[source]
            counts = Counter(words(part))
            different = sum(1 for term in terms if counts[term])
            if different:
                hits.append((-different, -sum(counts[term] for term in terms) / counts.total(), title))
        return [title for _, _, title in sorted(hits)[:limit]]

    def score(self, title: str, terms: list[str], k1: float = 1.5, b: float = 0.75) -> float:
        """Return the BM25 score. Source: Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009."""
        counts = self.counts[title]
        norm = k1 * (1 - b + b * counts.total() / self.mean_length)
        score = 0.0
        for term in terms:
            rarity = math.log(1 + (len(self.texts) - self.spread[term] + 0.5) / (self.spread[term] + 0.5))
            score += rarity * counts[term] * (k1 + 1) / (counts[term] + norm)
        return round(score, 2)

    def excerpt(self, title: str, terms: list[str]) -> str:
        """Return the paragraph with the most different terms, shortened to one line of at most 300 characters."""
        paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", self.texts[title])]
        prose = [paragraph for paragraph in paragraphs if len(paragraph) > 80] or paragraphs
        best = max(prose, key=lambda paragraph: len(set(words(paragraph)) & set(terms)))
        return textwrap.shorten(best, 300, placeholder=" ...")


def markdown(question: str, kind: str, reviewed: Reviewed) -> str:
    """Return the report."""
    lines = [f"# {question}", "", f"Kind of question: {kind}. Documents found: {len(reviewed.kept)}.", ""]
    for one in sorted(reviewed.kept, key=lambda one: (-one.score, one.title)):
        note = ", approved by a human" if one.title in reviewed.approved else ""
        lines += [f"## {one.title}", "", f"Score {one.score:.2f}{note}.", "", f"> {one.excerpt}", ""]
    if reviewed.left_out:
        lines += ["## Left out", "", *(f"- {title}" for title in reviewed.left_out), ""]
    return "\n".join(lines)


# The script.


def journal_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'journal.db'}"


def report_file(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.md"


def side_file(folder: Path, run_id: str) -> Path:
    return folder / f"{run_id}.steps.txt"


async def review(run_id: str, question: str, corpus: str, folder: Path) -> None:
    """Start the run, or go on with it, until it ends or waits for a human."""
    url = journal_url(folder)
    library = Library(read_corpus(corpus, leave_out=folder))
    flow = DocumentReview(library, report_file(folder, run_id), side_file(folder, run_id), journal=url)
    handler = flow.run(run_id=run_id, question=question, corpus=corpus)
    async for event in handler.stream_events():
        # The stream begins at the run's first item, so it also brings the questions that have been answered.
        if isinstance(event, ApprovalNeeded) and await is_open(url, event):
            print(f"waits for a human: keep {event.title!r}? (question {event.number} of {event.of})", flush=True)
            return  # leaving releases the run: it stays in the journal, unfinished
    print(f"finished: {await handler}", flush=True)


async def is_open(url: str, question: ApprovalNeeded) -> bool:
    """Tell whether nobody has answered the question yet."""
    async with Journal(url) as journal:
        return question.wait_id in [wait.wait_id for wait in await journal.pending()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Review documents; killed at any time, the same line goes on.")
    parser.add_argument("--run-id", default="review-1")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument(
        "--corpus", default="", help="a folder of .txt, .md, .rst and .py files; default: Python's docs"
    )
    parser.add_argument("--folder", type=Path, default=Path(FOLDER), help="for the journal and the report")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(review(options.run_id, options.question, options.corpus, options.folder))


if __name__ == "__main__":
    main()
