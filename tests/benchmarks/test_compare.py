"""The comparison with `ipcontroller` runs, and computes its figures correctly. No test checks a speed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compare.lines import LINES
from benchmarks.compare.page import page
from benchmarks.compare.results import Results, merged

from .running import printed_by

TASK = next(line for line in LINES if line.name == "task")
HUB, *_ = TASK.contenders
IPCONTROLLER = next(one for one in TASK.contenders if one.kind == "ipcontroller" and one.hwm == HUB.hwm)


@pytest.mark.interop
def test_the_tiny_form_has_figures_of_every_line_and_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, written, temporary = tmp_path / "results.json", tmp_path / "page.md", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    printed_by("benchmarks.compare", "--tiny", "--json", str(results), "--write", str(written))
    found = json.loads(results.read_text())
    assert not found["failures"]
    lines = [line for line in LINES if not line.long]
    assert found["figures"].keys() == {line.name for line in lines}
    for line in lines:
        kinds = {one.kind for one in line.contenders if one.label in found["figures"][line.name]}
        assert kinds == {one.kind for one in line.contenders}
        for one in found["figures"][line.name].values():
            assert one, line.name
        assert found["figures"][line.name][line.contenders[0].label][0].keys() == {one.key for one in line.figures}
        assert f"## {line.title}\n" in written.read_text()
    assert not list(temporary.iterdir())


def made(cpu: float) -> Results:
    results = Results([{"date": "2024-05-01", "cores": "2"}])
    for factor in (1.0, 3.0, 1.1):
        results.add(TASK, HUB, {"cpu": factor * cpu, "rate": 9000.0})
        results.add(TASK, IPCONTROLLER, {"cpu": 1000.0 * factor, "rate": 1000.0})
    return results


def test_the_page_has_medians_spreads_ratios_and_targets() -> None:
    text = page(made(cpu=50.0))
    assert "| date | 2024-05-01 |" in text
    assert f"| CPU per task | {HUB.label} | 55.0 µs | 50.0 to 150.0 | 0.05 |  |" in text
    assert f"| CPU per task | {IPCONTROLLER.label} | 1,100.0 µs | 1,000.0 to 3,000.0 |  |  |" in text
    assert f"| {HUB.label}: CPU per task at most 1/10 of {IPCONTROLLER.label} | 0.050 times | yes |" in text
    assert f"| {HUB.label}: CPU per task at most 2.5 times zmq_proxy | not measured | not measured |" in text
    assert "## Start and rest" not in text


def test_a_target_that_is_missed_is_named() -> None:
    text = page(made(cpu=150.0))
    assert "Of 2 targets, 1 is reached." in text
    assert f"- Tasks: {HUB.label}: CPU per task at most 1/10 of {IPCONTROLLER.label}" in text


def test_results_of_several_files_are_one(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    made(cpu=50.0).save(first)
    other = replace(made(cpu=50.0), machines=[{"date": "2024-05-02", "cores": "2"}], failures=["stock: no | answer"])
    other.save(second)
    together = merged([first, second])
    assert together.rounds(TASK) == 6
    text = page(together)
    assert "| date | 2024-05-01 | 2024-05-02 |" in text
    assert "- stock: no \\| answer" in text
