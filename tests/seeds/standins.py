"""What the programs of the seeds talk to, offline: the same names and methods, and the same answer every time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

DOCUMENTS = {
    "limits.txt": "API rate limits: configure the rate limits in limits.toml; the default is 60 requests a minute.",
    "install.txt": "Installation: install the package with pip, then start the service.",
    "main.txt": "The main topic of these documents is a small service with an API and rate limits.",
}


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


class CompletionResponse(BaseModel):
    """What a completion gives: `str(response)` and `response.text` are its text."""

    text: str

    def __str__(self) -> str:
        return self.text


class OpenAI:
    """Answers with the last words of the prompt, so that a test sees what was asked; `prompts` are all of them."""

    prompts: ClassVar[list[str]] = []

    def __init__(self, model: str = "gpt-4o-mini", api_key: str | None = None):
        self.model = model

    async def acomplete(self, prompt: str) -> CompletionResponse:
        self.prompts.append(prompt)
        if prompt.startswith("Extract 3-5 key points"):
            text = prompt.partition("Text:")[2].partition("Key points:")[0]
            return CompletionResponse(text="\n".join(line.strip() for line in text.splitlines() if line.strip()))
        return CompletionResponse(text=f"{self.model} on: {prompt.strip().splitlines()[-1]}")


class OpenAIEmbedding:
    def __init__(self, model: str):
        self.model = model


class Settings:
    llm: ClassVar[OpenAI | None] = None
    embed_model: ClassVar[OpenAIEmbedding | None] = None


class Document(BaseModel):
    text: str
    metadata: dict[str, Any] = {}


class TextNode(BaseModel):
    text: str
    metadata: dict[str, Any] = {}


class NodeWithScore(BaseModel):
    """A found piece of text; as in the real one, `text` and `metadata` are those of the node in it."""

    node: TextNode
    score: float

    @property
    def text(self) -> str:
        return self.node.text

    @property
    def metadata(self) -> dict[str, Any]:
        return self.node.metadata


class SimpleDirectoryReader:
    def __init__(self, folder: str):
        self.folder = Path(folder)

    def load_data(self) -> list[Document]:
        return [
            Document(text=path.read_text(), metadata={"file_name": path.name}) for path in sorted(self.folder.iterdir())
        ]


class Retriever:
    def __init__(self, documents: list[Document], top_k: int):
        self.documents = documents
        self.top_k = top_k

    async def aretrieve(self, query: str) -> list[NodeWithScore]:
        """Return the documents with most of the query's words, best first."""
        found = [
            NodeWithScore(
                node=TextNode(text=document.text, metadata=document.metadata),
                score=len(words(query) & words(document.text)),
            )
            for document in self.documents
        ]
        return sorted(found, key=lambda node: -node.score)[: self.top_k]


class VectorStoreIndex:
    def __init__(self, documents: list[Document]):
        self.documents = documents

    @classmethod
    def from_documents(cls, documents: list[Document]) -> VectorStoreIndex:
        return cls(documents)

    def as_retriever(self, similarity_top_k: int) -> Retriever:
        return Retriever(self.documents, similarity_top_k)


class SentenceTransformerRerank:
    """Prefers the shorter text: an order that is not the retriever's."""

    def __init__(self, model: str, top_n: int):
        self.model = model
        self.top_n = top_n

    def postprocess_nodes(self, nodes: list[NodeWithScore], query_str: str) -> list[NodeWithScore]:
        return sorted(nodes, key=lambda node: len(node.text))[: self.top_n]


def documents() -> list[Document]:
    """Return the documents as the reader gives them."""
    return [Document(text=DOCUMENTS[name], metadata={"file_name": name}) for name in sorted(DOCUMENTS)]


class NodeBridgeOrchestrator:
    """Stamps content; `requests` are what it was asked to."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    async def execute_orchestration(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        return {
            "success": True,
            "file_hash": f"hash of {request['content']}",
            "stamp_id": f"{request['namespace']}-1",
            "performance_metrics": {"execution_time_ms": 2},
        }


class ArchonMCPClient:
    """Research and patterns of Archon."""

    class ResearchOrchestrator:
        async def parallel_research(self, query: str, context: dict[str, Any]) -> dict[str, Any]:
            return {
                "combined_insights": [{"source": "rag", "insight": f"{query} in {context['domain']}"}],
                "confidence": 0.9,
                "sources": ["rag", "qdrant", "memgraph"],
            }

    class PatternTraceability:
        async def query_patterns(self, query: dict[str, Any]) -> list[str]:
            return [f"pattern for {query['metadata_filter']['domain']}"]

    def __init__(self) -> None:
        self.research_orchestrator = self.ResearchOrchestrator()
        self.pattern_traceability = self.PatternTraceability()
