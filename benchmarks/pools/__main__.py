"""Compares the rules of pools with Dask's adaptive scaling and with the least possible, over days of load.

    python -m benchmarks.pools --days 7

prints one line of JSON per controller: engine-hours, the least possible for the same waiting time of each task, waiting
times in seconds, and how many blocks were started, to no purpose, or soon after another was given back.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from random import Random
from time import perf_counter

from trio_hub.pools.settings import PoolSettings

from .controllers import DaskController, PoolController
from .least import least
from .loads import days
from .simulation import BatchSystem, Controller, simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--size", type=float, default=1.0, help="how large campaigns are (1: thousands of tasks)")
    parser.add_argument("--max", type=int, default=3000, help="engines, at most")
    parser.add_argument("--engines-per-block", type=int, default=16, help="of a second pair of runs; the first has 1")
    parser.add_argument("--idle-timeout", type=float, default=30.0)
    parser.add_argument("--wait", type=float, default=20.0, help="median seconds in the queue of the batch system")
    parser.add_argument("--startup", type=float, default=10.0, help="seconds from a block's start to its engines")
    parser.add_argument("--tick", type=float, default=1.0, help="seconds between two decisions, at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-dask", action="store_true")
    args = parser.parse_args()
    system = BatchSystem(args.wait, args.startup)

    def pool(engines_per_block: int) -> PoolController:
        return PoolController(
            PoolSettings(
                "simulated",
                max=args.max,
                engines_per_block=engines_per_block,
                backlog=args.max,
                idle_timeout=args.idle_timeout,
            )
        )

    controllers: list[tuple[str, Controller, int]] = []
    for size in sorted({1, args.engines_per_block}):
        controllers.append(("trio_hub", pool(size), size))
        if not args.without_dask:
            controllers.append(("dask", DaskController(args.max), size))
    for name, controller, engines_per_block in controllers:
        tasks = days(Random(args.seed), args.days, args.size)
        begin = perf_counter()
        result = simulate(
            tasks,
            controller,
            system=system,
            engines_per_block=engines_per_block,
            most=args.max,
            seed=args.seed,
            tick=args.tick,
            idle_timeout=args.idle_timeout,
        )
        best = least(tasks, args.startup, engines_per_block)
        line = {
            "controller": name,
            "engines_per_block": engines_per_block,
            "tasks": len(tasks),
            **{key: round(value, 2) for key, value in asdict(result).items()},
            "least_engine_hours": round(best.engine_hours, 2),
            "least_blocks": best.blocks,
            "ratio_to_least": round(result.engine_hours / best.engine_hours, 3),
            "ratio_to_placed": round(result.engine_hours / result.placed_hours, 3),
            "ratio_to_work": round(result.engine_hours / result.work_hours, 3),
            "seconds": round(perf_counter() - begin, 1),
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
