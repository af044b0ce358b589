"""The stock engine as an engine of a pool: the hub reads the pool's block from the engine's uuid."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio

from trio_hub import HubConfig, connect
from trio_hub.testing import open_hub

from .support import LIMIT, open_engine_process, until


def speaking(number: int) -> int:
    print(f"the number is {number}")
    return number + 1


def sleep_after_marking(marker: str) -> None:
    import time
    from pathlib import Path

    Path(marker).touch()
    time.sleep(60)


async def test_a_stock_engine_names_its_block_and_is_otherwise_as_before(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    options = [f"--ipython-dir={tmp_path}", "--IPEngine.timeout=30", "--block", "slurm-1f2e3d4c"]
    with trio.fail_after(LIMIT):
        async with (
            open_hub(HubConfig()) as hub,
            open_engine_process(
                tmp_path, *options, info=hub.engine_info, program=("-m", "trio_hub.engine.stock")
            ) as engine,
            connect(connection_info=hub.client_info) as client,
        ):
            await hub.wait_engines(1)
            [found] = hub.core.pooling.engines()
            assert found.block == "slurm-1f2e3d4c"
            assert await client.apply(speaking, 1) == 2
            while True:  # the output may come after the result
                [record] = await client.db_query({"queue": {"$eq": "task"}}, keys=["stdout", "engine_uuid"])
                if record["stdout"]:
                    break
            assert record["stdout"] == "the number is 1\n"
            assert record["engine_uuid"] == found.ident.decode()

            # The nanny has the engine's identity too, on the control channel.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(client.apply, sleep_after_marking, str(marker), on_cancel="interrupt"))
                await until(marker.exists, "the task runs")
                nursery.cancel_scope.cancel()
            assert await client.apply(speaking, 2) == 3
            engine.process.kill()
            await until(lambda: not hub.engines, "the nanny has unregistered the engine")
