"""The settings of a pool: which can be used, and what the errors say."""

from __future__ import annotations

from typing import Any

import pytest

from trio_hub.errors import ConfigError
from trio_hub.pools.demand import Queued
from trio_hub.pools.settings import PoolSettings

from .making import pool


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"name": ""}, "give each pool a name"),
        ({"min": 9}, "pool local: min is 9, which is more than max, 8: lower min or raise max"),
        ({"engines_per_block": 9}, "set max to at least 9, or lower engines_per_block"),
        ({"engines_per_block": 3, "min": 7}, "set max to at least 9, or min to at most 6"),
        ({"min": -1}, "min is '-1': it must be a whole number from 0"),
        ({"max": 2.5}, "max is '2.5': it must be a whole number"),
        ({"max": True}, "it must be a whole number"),
        ({"engines_per_block": 0}, "engines_per_block is '0': it must be a whole number from 1"),
        ({"backlog": 0}, "backlog is '0': it must be a whole number from 1"),
        ({"max_failures": 0}, "max_failures"),
        ({"idle_timeout": 0}, "idle_timeout is '0': it must be a positive number of seconds"),
        ({"idle_timeout": float("nan")}, "idle_timeout"),
        ({"startup_timeout": "soon"}, "startup_timeout is 'soon'"),
        ({"time_limit": -1}, "time_limit"),
        ({"retry_pause": float("inf")}, "retry_pause"),
        ({"parallelism": 1.5}, "parallelism is '1.5': it must be a number above 0 and at most 1"),
        ({"cost": 0}, "cost"),
        ({"stateless": 1}, "stateless is '1': it must be true or false"),
        ({"tags": {"gpu": -1}}, "pool local: tags[gpu] is '-1': it must be a positive amount"),
        ({"tags": "gpu"}, "pool local: tags is 'gpu'"),
        ({"tags": ("gpu",)}, "tags must be a mapping"),
    ],
)
def test_an_unusable_setting_is_refused_with_its_remedy(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pool(**settings)
    assert text in str(caught.value)


def test_tags_are_read_like_the_needs_of_tasks() -> None:
    settings = pool(tags={"gpu": 2, "memory": "4G", "site": "a"})
    assert settings.offers == (("gpu", 2.0), ("memory", 2.0**32), ("site", "a"))
    assert pool(tags=settings.tags) == settings
    assert settings.fits(Queued(1, needs=(("gpu", 1.0),)))
    assert not settings.fits(Queued(1, needs=(("gpu", 3.0),)))
    assert not settings.fits(Queued(1, needs=(("site", "b"),)))


def test_a_pool_whose_blocks_end_too_soon_does_not_fit() -> None:
    settings = pool(time_limit=1000.0)
    assert settings.fits(Queued(1, max_runtime=800.0))
    assert not settings.fits(Queued(1, max_runtime=1000.0))  # the engines need some seconds to start
    assert settings.fits(Queued(1, runtime=5000.0))  # an estimate is no limit


def test_a_max_of_0_is_a_pool_that_never_grows() -> None:
    assert PoolSettings("closed", max=0).max == 0
