"""The parts of the document review that need no engine: words, sources, BM25, excerpts and the report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from durable_flow.cli.example import load_example

review: Any = load_example()

BIRDS = {
    "finch": "The finch is a small bird.\n\n"
    "A finch eats seeds. Seeds are what a finch likes best of all the things that it can find.",
    "hawk": "The hawk is a large bird. It eats mice.",
    "oak": "The oak is a tree.",
}


def test_words_leave_out_what_every_question_has_and_the_plural():
    assert review.words("What are the Classes, and how do I pass args?") == ["classe", "pass", "arg"]


@pytest.mark.parametrize(
    ("question", "kind"),
    [("What is a hawk?", "definition"), ("How does it fly?", "how-to"), ("Why does it fly?", "open"), ("hawk", "open")],
)
def test_a_question_is_classified_by_its_first_words(question: str, kind: str):
    assert review.classify(question) == kind


def test_each_kind_of_question_searches_every_source():
    assert all(set(depth) == set(review.SOURCES) for depth in review.DEPTH.values())


def test_the_sources_look_in_different_parts_of_a_document():
    library = review.Library({"hawk": "mice", "mice": "a" * 600 + " hawk", "oak": "hawk oak"})
    assert library.search("titles", ["hawk"], 5) == ["hawk"]
    assert library.search("openings", ["hawk"], 5) == ["oak"]
    assert library.search("text", ["hawk"], 5) == ["mice", "oak"]
    assert library.search("text", ["hawk"], 1) == ["mice"]
    assert library.search("text", ["elephant"], 5) == []


def test_the_score_is_bm25():
    library = review.Library({"hawk": "bird", "oak": "tree tree"})
    # With their titles the documents have 2 and 3 words, 2.5 in the mean; "bird" is in one of two, once.
    idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    norm = 1.5 * (1 - 0.75 + 0.75 * 2 / 2.5)
    assert library.score("hawk", ["bird"]) == pytest.approx(idf * 2.5 / (1 + norm), abs=0.005)
    assert library.score("oak", ["bird"]) == 0


def test_a_rare_word_counts_more_than_a_common_one_and_an_unknown_one_nothing():
    library = review.Library(BIRDS)
    assert library.score("hawk", ["mice"]) > library.score("hawk", ["bird"]) > 0
    assert library.score("hawk", ["elephant"]) == 0


def test_the_excerpt_is_the_paragraph_with_most_of_the_words():
    library = review.Library(BIRDS)
    assert library.excerpt("finch", ["seed", "eat"]).startswith("A finch eats seeds.")
    assert library.excerpt("oak", ["nothing"]) == "The oak is a tree."


def test_a_long_excerpt_is_shortened():
    library = review.Library({"long": "word " * 200})
    assert len(library.excerpt("long", ["word"])) <= 300


def test_the_default_corpus_has_the_language_reference():
    texts = review.read_corpus("", leave_out=Path("nowhere"))
    assert len(texts) > 50
    assert "with" in texts


def test_a_folder_gives_its_text_files_but_neither_hidden_ones_nor_earlier_reports(tmp_path: Path):
    for name in ("a.md", "b.txt", "deep/c.rst", "d.py", "e.png", ".git/f.md", "durable-flow-demo/review.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")

    texts = review.read_corpus(str(tmp_path), leave_out=tmp_path / "durable-flow-demo")

    assert list(texts) == ["a.md", "b.txt", "d.py", "deep/c.rst", "latin.txt"]
    assert texts["latin.txt"] == "caf�"


def test_the_default_question_has_enough_to_score_and_something_to_ask_about():
    library = review.Library(review.read_corpus("", leave_out=Path("nowhere")))
    terms = sorted(set(review.words(review.QUESTION)))
    depth = review.DEPTH[review.classify(review.QUESTION)]
    titles = {title for source, limit in depth.items() for title in library.search(source, terms, limit)}
    scores = sorted((library.score(title, terms) for title in titles), reverse=True)

    assert len(scores) >= 12
    assert library.score("with", terms) == scores[0]
    assert sum(1 for score in scores if score < review.LOW * scores[0]) >= review.MOST_QUESTIONS


def test_the_report_tells_what_a_human_approved_and_what_was_left_out():
    good = review.Scored(title="hawk", score=2.0, excerpt="The hawk ...", of=3)
    low = review.Scored(title="finch", score=1.0, excerpt="The finch ...", of=3)
    text = review.markdown(
        "What is a hawk?", "definition", review.Reviewed(kept=[low, good], approved=["finch"], left_out=["oak"])
    )
    assert text.startswith("# What is a hawk?\n")
    assert text.index("## hawk\n\nScore 2.00.\n") < text.index("## finch\n\nScore 1.00, approved by a human.\n")
    assert text.endswith("## Left out\n\n- oak\n")


def test_the_subject_of_an_event_is_one_line():
    assert review.subject(review.Candidate(title="a\tb\nc", terms=[], of=1)) == "a b c"
    assert review.subject(review.Search(source="text", terms=[], limit=1)) == "text"
    assert review.subject(review.Approval(response="yes")) == "Approval"
