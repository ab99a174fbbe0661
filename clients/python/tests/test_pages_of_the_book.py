"""The Python on the pages for people runs as it stands there, and prints what they show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import ROOT

PAGES = ["clients/python/README.md", "docs/src/python.md", "docs/src/frameworks.md"]
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def is_shown(output: str, shown: str) -> bool:
    """Returns whether an output is what a page shows, where `...` stands for anything."""
    pattern = ".*".join(re.escape(piece) for piece in shown.split("..."))
    return re.fullmatch(pattern, output, re.DOTALL) is not None


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    blocks = _BLOCK.findall((ROOT / page).read_text())
    # A reader goes through a page from its top, in one notebook.
    script, shown, ran = "", "", 0
    for info, body in blocks:
        language, _, name = info.partition(" ")
        if name and language in ("yaml", "toml", "json"):
            (tmp_path / name).write_text(body)
        elif language == "python":
            script += body
            ran += 1
        elif language == "text" and ran:
            shown += body
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert is_shown(done.stdout, shown), done.stdout
    assert ran > 0
