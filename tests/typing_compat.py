"""A user's program in an environment that also has trio-typing; `nox -s typing-compat` runs and checks it."""

import trio

from trio_hub import HubConfig, serve_hub


async def main() -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_hub, HubConfig())
            print("serve_hub has started")
            nursery.cancel_scope.cancel()
    print("serve_hub has stopped")


async def checked_but_not_run(nursery: trio.Nursery, config: HubConfig) -> None:
    nursery.start_soon(serve_hub, config)
    # A wrong argument is noticed: if it were not, mypy would say that the exception is unused.
    nursery.start_soon(serve_hub, "config.toml")  # type: ignore[arg-type]


trio.run(main)
