"""The pages for people who decide about trio_hub say what was measured, and what is in the code."""

from __future__ import annotations

import re
import shlex
from inspect import signature

from trio_hub.dashboard import bars, progress
from trio_hub.hub import gone, late
from trio_hub.hub.withdrawn import Withdrawn
from trio_hub.records.output import MAX_OUTPUT
from trio_hub.runtime.host import EVENT_BUFFER
from trio_hub.wire.messages import MAX_HEADER, MAX_METADATA
from trio_hub.wire.signing import REPLAY_WINDOW

from .test_docs import COMMANDS, DOCS, code_blocks, section

LIMITS = DOCS / "limits.md"
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of a table, without its heading."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def anchor(title: str) -> str:
    """Return the anchor that Sphinx makes of a heading: it begins with a letter."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-").lstrip("0123456789-")


def test_each_figure_of_the_limits_is_in_the_section_that_it_names() -> None:
    measured = rows(section(LIMITS.read_text(), "How much a hub can do"))
    assert len(measured) > 10
    for question, figures, how in measured:
        link = re.fullmatch(r"\[(.+)\]\((.+)#(.+)\)", how)
        assert link is not None, question
        text = (LIMITS.parent / link[2]).read_text()
        titles = [title for title in re.findall(r"^## (.+)$", text, re.MULTILINE) if anchor(title) == link[3]]
        assert titles == [link[1]], question
        known = set(re.findall(NUMBER, section(text, link[1])))
        told = re.findall(NUMBER, figures.replace("99 of 100 cases", ""))
        assert told, question
        for figure in told:
            assert figure in known, (question, figure)


def test_the_fixed_limits_are_those_of_the_code() -> None:
    told = {limit: value for limit, value, _ in rows(section(LIMITS.read_text(), "Fixed limits"))}
    assert list(told.values()) == [
        f"{REPLAY_WINDOW:,}",
        f"{MAX_HEADER >> 20} MiB",
        f"{MAX_METADATA >> 20} MiB",
        f"{MAX_OUTPUT:,}",
        f"{gone.LIMIT:,}",
        f"{late.LIMIT:,}",
        f"{EVENT_BUFFER:,}",
        f"{signature(Withdrawn).parameters['limit'].default:,}",
        f"{bars.SIZE:,}",
        f"{progress.MAX_LABELS:,}",
    ]


def test_the_first_page_shows_the_dashboard_and_how_to_start_it() -> None:
    page = DOCS / "index.md"
    pictures = re.findall(r"^```\{image\} (\S+)$", page.read_text(), re.MULTILINE)
    assert [picture.rsplit("-", 1)[1] for picture in pictures] == ["light.png", "dark.png"]
    assert all((DOCS / picture).exists() for picture in pictures)
    ((_, commands),) = code_blocks(page, "bash")
    install, serve = commands.splitlines()
    assert "pip install" in install
    program, name, *options = shlex.split(serve)
    assert (program, name) == (".venv/bin/trio-hub", "serve")
    assert "--dashboard" in options
    assert "trio-hub serve" in COMMANDS
