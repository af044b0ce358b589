"""Rules of tasks of a stock client, with stock engines: said in the label, and set by policies of the hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest

from .conftest import LIMIT, Cluster, wait_until

pytestmark = pytest.mark.interop

StartCluster = Callable[..., Cluster]


def command(cluster: Cluster, *arguments: str) -> Any:
    """Return the answer of a command that asks the hub."""
    line = [sys.executable, "-m", "trio_hub", *arguments, f"--profile-dir={cluster.profile_dir}", "--json"]
    return json.loads(subprocess.run(line, check=True, capture_output=True, timeout=LIMIT).stdout)


def note(path: str, word: str) -> str:
    """Append a word to a file, and return it. Runs on an engine."""
    with open(path, "a") as file:
        file.write(word + "\n")
    return word


def wait_for(path: str) -> None:
    """Wait until a file is there. Runs on an engine."""
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.01)


def applied(rc: ipp.Client, msg_id: str) -> Any:
    [record] = rc.db_query({"msg_id": msg_id}, keys=["metadata"])
    return record["metadata"].get("trio_hub")


def occupied(cluster: Cluster, rc: ipp.Client, view: Any) -> tuple[Path, Any]:
    """Keep the only engine busy until a file is written. Return the file, and the result."""
    gate = cluster.profile_dir / "gate"
    busy = view.apply_async(wait_for, str(gate))
    wait_until(lambda: rc.queue_status()[0]["tasks"] == 1, "the engine is busy")
    return gate, busy


def test_a_label_sets_priority_and_needs(start_cluster: StartCluster) -> None:
    cluster = start_cluster(1)
    rc = cluster.client()
    rc.wait_for_engines(1, timeout=LIMIT)
    view = rc.load_balanced_view()
    gate, busy = occupied(cluster, rc, view)
    order = str(cluster.profile_dir / "order")
    low = view.apply_async(note, order, "low")
    with view.temp_flags(label={"run": "r7", "priority": 5}):
        high = view.apply_async(note, order, "high")
    view.set_flags(label={"needs": {"gpu": 1, "site": "a"}})
    needy = view.apply_async(note, order, "needy")
    with view.temp_flags(label={"priority": "very high"}):
        wrong = view.apply_async(note, order, "wrong")
    with pytest.raises(ipp.RemoteError, match="priority is 'very high': it must be a whole number from -1000 to 1000"):
        wrong.get(LIMIT)
    gate.touch()
    busy.get(LIMIT)
    assert (high.get(LIMIT), low.get(LIMIT)) == ("high", "low")
    assert Path(order).read_text().split() == ["high", "low"]
    assert applied(rc, high.msg_ids[0]) == {"rules": {"priority": 5}, "policies": []}
    assert applied(rc, low.msg_ids[0]) is None
    assert rc.db_query({"label.run": "r7"}, keys=["label"])[0]["label"] == {"run": "r7", "priority": 5}

    assert not needy.ready()
    [engine] = command(cluster, "explain", needy.msg_ids[0])["engines"]
    assert (engine["id"], engine["may"]) == (0, False)
    assert command(cluster, "tag", "0", "gpu=1", "site=a") == {"engine": 0, "offers": {"gpu": 1.0, "site": "a"}}
    assert needy.get(LIMIT) == "needy"
    assert rc.get_result(needy.msg_ids[0]).get(LIMIT) == "needy"


def test_a_policy_sets_them_without_a_change_of_the_program(start_cluster: StartCluster, tmp_path: Path) -> None:
    settings = tmp_path / "hub.toml"
    settings.write_text(
        """
        [[policy]]
        name = "urgent"
        label = "urgent-*"
        priority = 5

        [[policy]]
        name = "picky"
        function = "picky"
        needs = { gpu = 1 }
        """
    )

    def picky(path: str, word: str) -> str:
        with open(path, "a") as file:
            file.write(word + "\n")
        return word

    cluster = start_cluster(1, "--config", str(settings))
    rc = cluster.client()
    rc.wait_for_engines(1, timeout=LIMIT)
    view = rc.load_balanced_view()
    gate, busy = occupied(cluster, rc, view)
    order = str(cluster.profile_dir / "order")
    first = view.map_async(picky, [order, order], ["picky", "picky"], chunksize=1)
    low = view.apply_async(note, order, "low")
    with view.temp_flags(label="urgent-1"):
        high = view.apply_async(note, order, "high")
    added = command(cluster, "policy", "add", "late", "--label", "late-*", "--priority", "-5")["policies"]
    assert [policy["name"] for policy in added] == ["late", "urgent", "picky"]
    with view.temp_flags(label="late-1"):
        late = view.apply_async(note, order, "late")
    wait_until(lambda: applied(rc, late.msg_ids[0]), "it is recorded")
    gate.touch()
    busy.get(LIMIT)
    assert (low.get(LIMIT), high.get(LIMIT), late.get(LIMIT)) == ("low", "high", "late")
    assert Path(order).read_text().split() == ["high", "low", "late"]
    assert applied(rc, high.msg_ids[0]) == {"rules": {"priority": 5}, "policies": ["urgent"]}
    assert applied(rc, late.msg_ids[0]) == {"rules": {"priority": -5}, "policies": ["late"]}
    assert applied(rc, first.msg_ids[0]) == {"rules": {"needs": {"gpu": 1.0}}, "policies": ["picky"]}
    shown = command(cluster, "task", high.msg_ids[0])
    assert (shown["rules"], shown["policies"], shown["attempts"]) == ({"priority": 5}, ["urgent"], 1)
    assert not first.ready()
    command(cluster, "tag", "0", "gpu=1")
    assert first.get(LIMIT) == ["picky", "picky"]
