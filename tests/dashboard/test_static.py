"""The pages' files, without a browser: they are whole, keep to what the security policy allows, and are documented."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

import trio_hub.dashboard

STATIC = Path(trio_hub.dashboard.__file__).parent / "static"
DOCS = Path(__file__).parents[2] / "docs"
INDEX = (STATIC / "index.html").read_text()
MODULES = sorted(STATIC.glob("*.js"))
PICTURES = sorted((DOCS / "images").glob("dashboard-*.png"))
PAGE = (DOCS / "how-to" / "dashboard.md").read_text()
VIEWS = re.findall(r'<a href="#/(\w+)">', INDEX)
MOST_BYTES = 150_000


def test_every_file_is_used_and_there() -> None:
    used = set(re.findall(r'(?:href|src)="static/([\w.]+)"', INDEX)) | {"index.html"}
    for module in MODULES:
        used |= set(re.findall(r'from "\./([\w.]+)"', module.read_text()))
    assert used == {path.name for path in STATIC.iterdir()}


def test_the_page_has_nothing_inline() -> None:
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", INDEX)
    assert not re.search(r"<script(?![^>]*\ssrc=)", INDEX)
    assert not re.findall(r'(?:href|src)="(?:https?:)?//', INDEX)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_modules_never_parse_what_the_hub_says_as_html(module: Path) -> None:
    code = module.read_text()
    assert not re.search(r"(inner|outer|Adjacent)HTML|document\.write|\beval\(|new Function|DOMParser", code)
    assert '"style"' not in code, "the policy allows no style attributes: use the property"
    assert len(code.splitlines()) <= 350


def test_every_view_is_explained_with_a_picture_in_light_and_dark() -> None:
    assert len(VIEWS) == 6
    for view in VIEWS:
        assert f"\n## {view.capitalize()}\n" in PAGE
        for theme in ("light", "dark"):
            assert f"../images/dashboard-{view}-{theme}.png" in PAGE
    assert set(re.findall(r"\.\./images/([\w.-]+)", PAGE)) == {path.name for path in PICTURES}


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.stem)
def test_pictures_are_small(picture: Path) -> None:
    content = picture.read_bytes()
    assert len(content) < MOST_BYTES
    assert struct.unpack(">I", content[16:20]) == (1280,)
