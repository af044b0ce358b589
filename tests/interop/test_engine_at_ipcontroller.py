"""An engine of ours at a stock ipcontroller, with a stock client."""

from __future__ import annotations

from pathlib import Path

import ipyparallel as ipp
import pytest

from .conftest import LIMIT
from .controllers import ipcontroller

pytestmark = pytest.mark.interop


def test_it_works_as_a_stock_engine_does(tmp_path: Path) -> None:
    directory = tmp_path / "profile"
    with (
        ipcontroller(directory, engine=("trio_hub", "engine")),
        ipp.Client(profile_dir=str(directory), timeout=LIMIT) as client,
    ):
        client.wait_for_engines(1, timeout=LIMIT)
        assert client.ids == [0]
        for view in (client[0], client.load_balanced_view(), client.broadcast_view()):
            assert view.apply_async(abs, -1).get(LIMIT) in (1, [1])
            printed = view.apply_async(print, "high tide")
            printed.get(LIMIT)
            assert printed.wait_for_output(LIMIT)
            assert printed.stdout in ("high tide\n", ["high tide\n"])
        executed = client[0].execute("6 * 7", silent=False)
        assert executed.wait_for_output(LIMIT)
        assert executed.execute_result["data"]["text/plain"] == "42"
