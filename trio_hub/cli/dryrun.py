"""``trio-hub pools dry-run``: what a pool would submit, without a hub."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..config import HubConfig, Pool, load_config
from ..config.pools import COMMAND, LOCAL
from ..errors import ConfigError, HubError
from . import codes
from .asking.options import example, pool_names
from .asking.output import clean, one_line, print_json
from .failures import leaves
from .serve import setting_options

if TYPE_CHECKING:
    from ..launching.commands import Places

__all__ = ["dry_run"]

SETTINGS = ("profile", "profile_dir", "cluster_id", "pools")
"""The settings that have options of their own. All others are read from the file and the environment."""
DELETE = {"slurm": "scancel", "pbs": "qdel", "sge": "qdel", "lsf": "bkill", "htcondor": "condor_rm"}
"""The commands of batch systems that cancel a job, by launcher."""


class Submitted(NamedTuple):
    """A block that was submitted: its name, the job as the batch system names it, and how to cancel the job."""

    block: str
    job: str
    cancel: str


@click.pass_context
def _dry_run(
    context: click.Context, /, name: str, submit: bool, as_json: bool, config: Path | None, **options: Any
) -> None:
    try:
        settings = load_config(options, os.environ, config)
        pool = _pool_named(settings, name)
        if submit and pool.launcher == LOCAL:
            raise ConfigError(f"pool {name}: the hub itself starts these engines, so that there is nothing to submit")
    except ConfigError as error:
        raise click.UsageError(str(error), context) from error
    failures: list[str] = []
    text, submitted = "", None
    try:
        text, submitted = _try(settings, pool, submit)
    except* HubError as group:  # the launcher has a nursery
        failures = [str(error) for error in leaves(group)]
    if failures:
        from .asking.session import complain

        for failure in failures:
            complain(failure)
        sys.exit(codes.FAILED)
    if as_json:
        told = None if submitted is None else submitted._asdict()
        number = pool.settings.engines_per_block
        print_json({"pool": name, "launcher": pool.launcher, "engines": number, "preview": text, "submitted": told})
        return
    click.echo(clean(text).rstrip("\n"))
    if submitted is not None:
        click.echo(
            f"\nsubmitted block {submitted.block} as job {one_line(submitted.job) or '(the launcher names none)'}"
        )
        click.echo(f"to cancel it: {submitted.cancel}")


def _pool_named(settings: HubConfig, name: str) -> Pool:
    """Return a pool of the settings. Raises `ConfigError`."""
    for pool in settings.all_pools:
        if pool.name == name:
            return pool
    names = ", ".join(pool.name for pool in settings.all_pools) or "none"
    raise ConfigError(
        f"the settings have no pool {name!r} (pools: {names}): name their file with --config, or give --pool"
    )


def _try(settings: HubConfig, pool: Pool, submit: bool) -> tuple[str, Submitted | None]:
    """Return what would be submitted; and if it is to be submitted, the block. Raises `HubError`."""
    import trio

    from ..launching.agentlauncher import AgentLauncher
    from ..launching.commands import Places
    from ..runtime.enginecommand import engine_command, pool_command
    from ..runtime.pooling.blocks import new_name
    from ..runtime.pooling.files import pool_directory

    directory = pool_directory(settings)
    assert directory is not None, "the settings of a command always have a profile"
    number = pool.settings.engines_per_block
    if pool.launcher == LOCAL:
        words = pool_command(settings, pool) if pool in settings.pools else engine_command(settings)
        each = "this engine" if number == 1 else f"each of the {number} engines of a block"
        return f"# the hub itself starts {each}:\n{shlex.join(words)}\n", None

    places = Places(directory, settings.profile_dir, settings.cluster_id)
    if submit and not os.path.exists(places.connection_path()):
        told = f"there is no {places.connection_path()}: the engines of this block find no hub unless one is started"
        click.echo(f"trio-hub: warning: {told}", err=True)

    async def look() -> tuple[str, Submitted | None]:
        # A hub with these settings looks in the same directory for the files about a submitted block.
        launcher = AgentLauncher(
            pool, directory=directory, profile_dir=settings.profile_dir, cluster_id=settings.cluster_id
        )
        async with launcher:
            text = await launcher.preview(f"{pool.name}-preview", number)
            if not submit:
                return text, None
            block = new_name(pool.name)
            job = str((await launcher.submit(block, number)).get("job", ""))
        return text, Submitted(block, job, _how_to_cancel(pool, block, job, places))

    return trio.run(look)


def _how_to_cancel(pool: Pool, block: str, job: str, places: Places) -> str:
    """Return the command that cancels a job, or a sentence if there is none."""
    from ..launching.commands import block_environment

    if pool.launcher == COMMAND:
        variables = block_environment(pool, block, pool.settings.engines_per_block, places) | {"TRIO_HUB_JOB": job}
        words = [*(f"{name}={value}" for name, value in variables.items()), "sh", "-c", pool.cancel_command]
        return f"env {shlex.join(words)}"
    system = pool.launcher.lower().removeprefix("trio-hub-")
    if system in DELETE:
        return shlex.join([DELETE[system], job])
    return "its engines end with `trio-hub shutdown --engine ID`, or when their processes are ended"


def _options() -> list[click.Parameter]:
    return [option for option in setting_options() if option.name in SETTINGS]


dry_run = click.Command(
    "dry-run",
    callback=_dry_run,
    params=[
        click.Argument(["name"], shell_complete=pool_names),
        click.Option(["--submit"], is_flag=True, help="Submit one block, and say how to cancel it."),
        click.Option(
            ["--config"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE.toml",
            help="The file of settings. By default, the file that TRIO_HUB_CONFIG names, if any.",
        ),
        *_options(),
        click.Option(["as_json", "--json"], is_flag=True, help="Print JSON, for programs."),
    ],
    help=(
        "Print what a pool would submit for one block: the script, the command and the environment.\n\n"
        "The settings are those of a hub: the file, the environment, and these options. No hub has to run. Values of "
        "variables that look like secrets are not printed. With --submit, one block is really submitted. If a hub with "
        "this pool runs in the profile, the engines of the block become engines of the pool."
    ),
    epilog=example(
        "trio-hub pools dry-run slurm --config hub.toml",
        "trio-hub pools dry-run batch --pool name=batch,launcher=slurm,max=8 --submit",
    ),
)
