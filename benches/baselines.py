"""Ask the questions of `cargo bench --bench quality -- --export FOLDER` of other engines, over the same chunks.

Each engine gets the title, the headings and the text of a chunk as one text. An engine that has fields gets them as
fields, too. It needs (and does not install):

    pip install bm25s PyStemmer rank-bm25 tantivy

Usage: python benches/baselines.py FOLDER. It opens no connection, and ends within minutes.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Most of these libraries say nothing about their types.
bm25s: Any = importlib.import_module("bm25s")
numpy: Any = importlib.import_module("numpy")
rank_bm25: Any = importlib.import_module("rank_bm25")
stemming: Any = importlib.import_module("Stemmer")
tantivy: Any = importlib.import_module("tantivy")

LIMIT = 10
"""The number of answers that count."""

FIELD_WEIGHTS = (1.0, 2.0, 4.0, 8.0)
"""The weights of title and headings that are tried."""

REPEATED = (1, 2, 3, 4)
"""How often title and headings come in the one text. Ragward counts them twice."""

REPEATED_SLOW_MAX = 2
"""How often at most with `rank_bm25`, which takes longer than all others together."""

WORD = re.compile(r"\w+")

GROUPS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("all fields as one text (goal: at least 1)", lambda name: "x 1" in name or "one text" in name),
    (
        "title and headings twice, as in Ragward (goal: at least 1)",
        lambda name: "x 2" in name or name.endswith("weight 2"),
    ),
    ("any weight", lambda _: True),
)
"""The engines by the weight that they give to title and headings."""

Engine = Callable[[str], list[str]]


@dataclass(frozen=True)
class Chunk:
    """A chunk as the bench exports it."""

    id: str
    title: str
    headings: str
    text: str

    def as_one_text(self, repeated: int) -> str:
        """Return all fields, with title and headings said so many times."""
        return "\n".join([*[self.title, self.headings] * repeated, self.text])


@dataclass(frozen=True)
class Question:
    """A question, its right chunks, and what Ragward answered."""

    kind: str
    text: str
    relevant: frozenset[str]
    ragward: list[str]


@dataclass(frozen=True)
class Quality:
    """The quality of one answer, or the means of many."""

    ndcg: float
    reciprocal_rank: float
    recall: float


def lines(file: Path) -> Iterator[dict[str, Any]]:
    """Read JSON Lines."""
    with file.open(encoding="utf-8") as opened:
        for line in opened:
            yield json.loads(line)


def quality(question: Question, ranking: list[str]) -> Quality:
    """Judge an answer: a chunk is right or not. The bench in Rust has the same formulas."""
    hits = [rank for rank, chunk in enumerate(ranking[:LIMIT], 1) if chunk in question.relevant]
    possible = min(len(question.relevant), LIMIT)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, possible + 1))
    return Quality(
        sum(1 / math.log2(rank + 1) for rank in hits) / ideal,
        1 / hits[0] if hits else 0.0,
        len(hits) / possible,
    )


def mean(qualities: list[Quality]) -> Quality:
    """Return the means."""
    count = max(len(qualities), 1)
    return Quality(
        sum(each.ndcg for each in qualities) / count,
        sum(each.reciprocal_rank for each in qualities) / count,
        sum(each.recall for each in qualities) / count,
    )


def of_bm25s(chunks: list[Chunk], repeated: int, stopwords: str | None) -> Engine:
    """Index with the library `bm25s`, with English stems."""
    stemmer = stemming.Stemmer("english")
    ids = [chunk.id for chunk in chunks]
    texts = [chunk.as_one_text(repeated) for chunk in chunks]
    index = bm25s.BM25(k1=1.2, b=0.75)
    index.index(bm25s.tokenize(texts, stopwords=stopwords, stemmer=stemmer, show_progress=False), show_progress=False)

    def ask(text: str) -> list[str]:
        tokens = bm25s.tokenize([text], stopwords=stopwords, stemmer=stemmer, show_progress=False)
        found, _ = index.retrieve(tokens, k=LIMIT, show_progress=False)
        return [ids[int(place)] for place in found[0]]

    return ask


def of_rank_bm25(chunks: list[Chunk], repeated: int) -> Engine:
    """Index with the library `rank_bm25` (Okapi), with English stems."""
    stemmer = stemming.Stemmer("english")
    ids = [chunk.id for chunk in chunks]

    def words(text: str) -> list[str]:
        return list(stemmer.stemWords(WORD.findall(text.lower())))

    index = rank_bm25.BM25Okapi([words(chunk.as_one_text(repeated)) for chunk in chunks], k1=1.2, b=0.75)

    def ask(text: str) -> list[str]:
        scores = index.get_scores(words(text))
        best = numpy.argsort(-scores, kind="stable")[:LIMIT]
        return [ids[int(place)] for place in best]

    return ask


def of_tantivy(chunks: list[Chunk], weight: float | None) -> Engine:
    """Index with the search engine `tantivy`, with English stems: one text, or title and headings with this weight."""
    names = ["text"] if weight is None else ["title", "headings", "text"]
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", stored=True, tokenizer_name="raw")
    for name in names:
        builder.add_text_field(name, tokenizer_name="en_stem")
    index = tantivy.Index(builder.build())
    writer = index.writer(128_000_000, 1)
    for chunk in chunks:
        document = tantivy.Document()
        document.add_text("id", chunk.id)
        if weight is None:
            document.add_text("text", chunk.as_one_text(1))
        else:
            for name in names:
                document.add_text(name, getattr(chunk, name))
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    searcher = index.searcher()
    boosts = {} if weight is None else {"title": weight, "headings": weight}

    def ask(text: str) -> list[str]:
        # The words alone are asked for, because a heading may have marks that mean something in the query language.
        query = index.parse_query(" ".join(WORD.findall(text)).lower(), names, field_boosts=boosts)
        found = searcher.search(query, LIMIT).hits
        return [searcher.doc(address)["id"][0] for _, address in found]

    return ask


def engines(chunks: list[Chunk]) -> Iterator[tuple[str, Engine]]:
    """Make one engine after another, so that only one index is in memory at a time."""
    for repeated in REPEATED:
        for stopwords in (None, "en"):
            left_out = "all words" if stopwords is None else "no stop words"
            yield f"bm25s, fields x {repeated}, {left_out}", of_bm25s(chunks, repeated, stopwords)
        if repeated <= REPEATED_SLOW_MAX:
            yield f"rank_bm25, fields x {repeated}", of_rank_bm25(chunks, repeated)
    yield "tantivy, one text", of_tantivy(chunks, None)
    for weight in FIELD_WEIGHTS:
        yield f"tantivy, fields of weight {weight:g}", of_tantivy(chunks, weight)


def row(name: str, questions: list[Question], rankings: list[list[str]]) -> Quality:
    """Print the qualities of an engine, and return that of all questions."""
    judged = [
        (question.kind, quality(question, ranking)) for question, ranking in zip(questions, rankings, strict=True)
    ]
    kinds = sorted({kind for kind, _ in judged})
    by_kind = [mean([each for of_kind, each in judged if of_kind == kind]) for kind in kinds]
    total = mean([each for _, each in judged])
    cells = "".join(f"{each.ndcg:>10.4f}" for each in by_kind)
    print(f"{name:<38}{total.ndcg:>9.4f}{total.reciprocal_rank:>9.4f}{total.recall:>11.4f}{cells}", flush=True)
    return total


def main() -> None:
    """Ask all engines, and print a table."""
    if len(sys.argv) != 2:
        sys.exit("usage: python benches/baselines.py FOLDER")
    folder = Path(sys.argv[1])
    chunks = [
        Chunk(each["id"], each["title"], "\n".join(each["headings"]), each["text"])
        for each in lines(folder / "chunks.jsonl")
    ]
    questions = [
        Question(each["kind"], each["text"], frozenset(each["relevant"]), each["ragward"])
        for each in lines(folder / "questions.jsonl")
    ]
    print(f"{len(chunks)} chunks, {len(questions)} questions")
    for number, kind in enumerate(sorted({question.kind for question in questions}), 1):
        print(f"kind {number}: {kind} ({sum(question.kind == kind for question in questions)} questions)")
    print(f"{'':<38}{'nDCG@10':>9}{'MRR@10':>9}{'recall@10':>11}{'kind 1':>10}{'kind 2':>10}   (nDCG@10 by kind)")
    ours = row("Ragward", questions, [question.ragward for question in questions])
    others: list[tuple[float, str]] = []
    for name, ask in engines(chunks):
        started = time.monotonic()
        rankings = [ask(question.text) for question in questions]
        took = time.monotonic() - started
        others.append((row(name, questions, rankings).ndcg, name))
        print(f"  {len(questions)} questions in {took:.1f} s", file=sys.stderr)
    print("\nRagward / the best of them, in nDCG@10:")
    for what, is_meant in GROUPS:
        best, name = max(other for other in others if is_meant(other[1]))
        print(f"{what}: {ours.ndcg / best:.4f} ({name})")
    print("Questions from headings reward a high weight of headings without end, so the last row is not a goal.")
    print(
        "What bounds it: words alone are compared; the questions have the words of the headings, which all engines have."
    )


if __name__ == "__main__":
    main()
