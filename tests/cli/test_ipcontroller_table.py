"""The table of traits and options: complete beside the real classes, harmless for their defaults, and in the docs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trio_hub.cli.kinds import FRESH_KEY, PAIR
from trio_hub.cli.traits import ALIASES, FLAGS, SECTIONS, TRAITS
from trio_hub.cli.translate import SPOKEN_OF, translate
from trio_hub.cli.translation import Translation
from trio_hub.config import RULES, HubConfig

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "switch-from-ipcontroller.md"
# Parents that everything has, of which no config file speaks.
EVERYBODY_S = {"SingletonConfigurable", "LoggingConfigurable", "Configurable"}


# Beside the real classes


@pytest.fixture(scope="module")
def classes() -> dict[str, Any]:
    """Return all classes that `ipcontroller` configures, by name."""
    from ipyparallel.controller.app import IPController
    from ipyparallel.controller.broadcast_scheduler import BroadcastScheduler
    from ipyparallel.controller.dictdb import NoDB

    with pytest.MonkeyPatch.context() as patch:
        for name, attributes in {  # without which the module of MongoDB cannot be looked at
            "pymongo": ["MongoClient", "version"],
            "bson": [],
            "bson.binary": ["Binary"],
            "bson.codec_options": ["CodecOptions"],
        }.items():
            module = ModuleType(name)
            for attribute in attributes:
                setattr(module, attribute, type(attribute, (), {}))
            patch.setitem(sys.modules, name, module)
        patch.delitem(sys.modules, "ipyparallel.controller.mongodb", raising=False)
        from ipyparallel.controller.mongodb import MongoDB

        patch.delitem(sys.modules, "ipyparallel.controller.mongodb")
    found = {IPController, *IPController.classes, BroadcastScheduler, NoDB, MongoDB}
    return {each.__name__: each for each in found}


@pytest.mark.interop
def test_every_trait_of_ipcontroller_is_in_the_table_and_no_other(classes: dict[str, Any]) -> None:
    real = {f"{name}.{trait}" for name, each in classes.items() for trait in each.class_traits(config=True)}
    assert real == set(TRAITS)


@pytest.mark.interop
def test_every_option_of_ipcontroller_is_in_the_table_and_no_other(classes: dict[str, Any]) -> None:
    app = classes["IPController"](log_level=50)
    mine = {alias: SPOKEN_OF[alias_of] for alias, alias_of in app.aliases.items()}
    assert mine == ALIASES
    assert set(app.flags) == set(FLAGS)
    for name, (sections, _) in app.flags.items():
        real = {SPOKEN_OF[f"{section}.{trait}"] for section, traits in sections.items() for trait in traits}
        assert real == {trait for trait, _ in FLAGS[name].sets}, name


@pytest.mark.interop
def test_every_parent_of_a_class_can_speak_for_it(classes: dict[str, Any]) -> None:
    app = classes["IPController"]
    for name, each in classes.items():
        parents = [parent for parent in reversed(each.section_names()) if parent not in EVERYBODY_S]
        assert parents[0] == name
        spoken = [
            section
            for section, spoken_of in SECTIONS.items()
            if name in spoken_of and section not in app._deprecated_classes
        ]
        if any(trait.startswith(f"{name}.") for trait in TRAITS):
            assert spoken == parents[::-1], name
        assert set(parents) <= set(SECTIONS)
    assert set(app._deprecated_classes) <= set(SECTIONS)


@pytest.mark.interop
def test_a_file_that_spells_out_every_default_can_be_used(classes: dict[str, Any]) -> None:
    from traitlets import Undefined

    app = classes["IPController"](log_level=20)
    translation = Translation()
    for name, trait in TRAITS.items():
        class_name, _, trait_name = name.partition(".")
        if class_name == "MongoDB" or trait.kind is PAIR:  # pairs of ports have a default that they do not accept
            continue
        if class_name == "IPController":
            default = getattr(app, trait_name)
        else:
            default = classes[class_name].class_traits(config=True)[trait_name].default_value
        trait.apply(translation, trait.kind.check({} if default is Undefined else default), name)
    config, usual = translation.config(), HubConfig()
    assert config.db == usual.database == "memory"
    different = {each for each in RULES if getattr(config, each) != getattr(usual, each)} - {"db", "curve"}
    assert (config.curve, usual.curve) == (False, None)
    # Other defaults there: 1,024 records, whose bytes are limited as here, and two broadcast ports.
    written_out = {"profile_dir", "location", "client_ip", "engine_ip", "registration_timeout"}
    assert different == {"db_max_records", "db_max_bytes", "broadcast_ports"} | written_out
    assert config.db_max_bytes == 2**30
    assert {remark.split(":")[0] for remark in translation.remarks} <= {
        "Session.key", "Session.username", "IPController.log_format",
        "IPController.log_datefmt", "DictDB.cull_fraction",
    }  # fmt: skip


# By itself


def test_the_table_fits_the_settings() -> None:
    for trait in TRAITS.values():
        assert set(trait.settings) <= set(RULES)
        assert trait.settings or trait.does or trait.note
    assert set(ALIASES.values()) | {name for flag in FLAGS.values() for name, _ in flag.sets} <= set(TRAITS)


# In the docs


def expected_tables() -> dict[str, list[str]]:
    """Return the rows of each table of the page, by its heading."""
    return {
        "Options": [f"| `--{name}` | `{trait}` | {_here(trait)} |" for name, trait in ALIASES.items()],
        "Flags": [f"| `--{name}` | {_sets(name)} | {flag.help} |" for name, flag in FLAGS.items()],
        "Traits": [f"| `{name}` | {_here(name)} | {trait.note} |" for name, trait in TRAITS.items()],
    }


def _here(name: str) -> str:
    trait = TRAITS[name]
    return ", ".join(f"`{setting}`" for setting in trait.settings) or trait.does or "nothing"


def _sets(flag: str) -> str:
    return ", ".join(f"`{trait}` = {_shown(value)}" for trait, value in FLAGS[flag].sets)


def _shown(value: object) -> str:
    return "a new key" if value is FRESH_KEY else f"`{value!r}`"


@pytest.mark.parametrize("title", expected_tables())
def test_the_table_is_in_the_docs(title: str) -> None:
    found = re.search(rf"^### {title}\n(.*?)(?=^##|\Z)", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    rows = [row for row in found[1].splitlines() if row.startswith("| `")]
    assert rows == expected_tables()[title]


def test_the_commands_of_the_page_are_understood(tmp_path: Path) -> None:
    found = re.findall(r"^trio-hub (?:config show --)?ipcontroller (.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert found
    for arguments in found:
        assert translate(shlex.split(arguments), {"IPYTHONDIR": str(tmp_path)}).remarks == []
