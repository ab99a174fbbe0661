"""The examples run with no key and no network, and what reaches each stand-in model is what its user may see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "python"

#: For each example, the parts of its output in their order: who asks, what they see, and what they must not see.
ROWS: dict[str, list[tuple[str, str, str]]] = {
    "quickstart.py": [
        ("user:anne", "How the pay review works", "Pay bands"),
        ("user:bob", "Pay bands", "On call"),
    ],
    "langchain_rag.py": [
        ("== user:anne", "- On call", "Leave casework"),
        ("== user:bob", "- Leave casework", "On call"),
    ],
    "llamaindex_rag.py": [
        ("== user:anne", "title: On call", "Leave casework"),
        ("== user:bob", "title: Leave casework", "On call"),
    ],
    "agent_on_behalf.py": [
        ("Anne herself", "On call", "Leave casework"),
        ("desk-helper for Anne:", "On call", "Leave casework"),
        ("desk-helper for Anne, for two pages", "Parental leave", "On call"),
        ("inbox-sorter for Anne", "(nothing)", "Parental leave"),
    ],
}


@pytest.mark.parametrize("example", ROWS)
def test_an_example_shows_each_user_what_they_may_see(example: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rest = done.stdout
    rows = ROWS[example]
    for number, (who, seen, hidden) in enumerate(rows):
        before, _, rest = rest.partition(who)
        assert before == "" or number > 0, (who, done.stdout)
        part = rest.partition(rows[number + 1][0])[0] if number + 1 < len(rows) else rest
        assert seen in part, (who, done.stdout)
        assert hidden not in part, (who, done.stdout)


def test_every_example_is_run() -> None:
    # The two that are imported are no examples themselves.
    helpers = {"handbook.py", "issuer.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} - helpers == set(ROWS)
