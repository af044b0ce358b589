"""The benchmark of whole clusters runs, and writes its page. No test checks a speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.end_to_end import FIGURES, contenders, page

ROOT = Path(__file__).parents[2]
LIMIT = 240.0


def test_the_page_has_medians_and_says_what_failed() -> None:
    figures = [dict.fromkeys(FIGURES, 10.0 * number) for number in (1, 3, 2)]
    text = page({"good": figures, "bad": []}, {"date": "2024-05-01", "cores": "2"})
    (row,) = [line for line in text.splitlines() if line.startswith("| good")]
    assert row == "| good | 20.0 s | 20 (10 to 30) | 20.00 ms (10 to 30) | 20 MB/s (10 to 30) | 20 MB | 20 |"
    assert "| bad | failed |" in text
    assert "| date | 2024-05-01 |" in text
    assert "Medians of 3 rounds" in text


def test_what_is_not_installed_is_left_out() -> None:
    names = [one.name for one in contenders()]
    assert "ProcessPoolExecutor" in names
    assert "trio-hub, stock engines, Executor" in names
    assert len(set(names)) == len(names)


@pytest.mark.interop
def test_it_measures_and_writes_a_page(tmp_path: Path) -> None:
    only = ["trio-hub, stock engines", "Dask", "ProcessPool"]
    options = ["--rounds", "1", "--calls", "50", "--write", str(tmp_path / "page.md"), "--only", *only]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.end_to_end", *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.md").read_text()
    for name in ("stock client", "connect", "Executor"):
        assert f"| trio-hub, stock engines, {name} | " in text
    assert "| Dask | " in text
