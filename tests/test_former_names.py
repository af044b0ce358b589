"""Programs that import modules by their former names get the modules."""

from __future__ import annotations

import importlib

import pytest

import trio_hub.databases.layers


@pytest.mark.parametrize("name", ["backend", "columns", "prefilter", "sqlite"])
def test_databases(name: str) -> None:
    module = importlib.import_module(f"trio_hub.store.{name}")
    assert module is importlib.import_module(f"trio_hub.databases.{name}")


@pytest.mark.parametrize("name", ["interface", "memory", "none", "output", "query", "record"])
def test_records(name: str) -> None:
    assert importlib.import_module(f"trio_hub.store.{name}") is importlib.import_module(f"trio_hub.records.{name}")


def test_layers_were_called_pending() -> None:
    assert importlib.import_module("trio_hub.store.pending") is trio_hub.databases.layers


def test_another_name_is_unknown() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        trio_hub.store.other  # noqa: B018
