from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from trio_hub.config import RULES, SCHEMES, DatabaseURL, HubConfig, load_config, profile_directory
from trio_hub.errors import ConfigError
from trio_hub.schedulers.schemes import SCHEMES as THE_SCHEMES

Z85 = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"  # a public key, from the ZeroMQ manual


def load(
    cli: dict[str, Any] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> HubConfig:
    return load_config(cli or {}, environ or {}, file)


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "hub.toml"
        path.write_text(text, "utf-8")
        return path

    return write


# HubConfig


def test_the_defaults_are_accepted_and_told() -> None:
    config = HubConfig()
    assert config.profile_dir is None
    assert (config.ip, config.ping, config.hwm, config.scheme, config.db) == (
        "127.0.0.1",
        3.0,
        1,
        "leastload",
        None,
    )
    assert config.database == "memory"
    assert HubConfig.__doc__ is not None
    for entry in fields(HubConfig):
        assert f"{entry.name}: {entry.metadata['doc']}" in HubConfig.__doc__


def test_it_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        HubConfig().ping = 1.0  # type: ignore[misc]


def test_names_repeated_here_are_those_of_the_parts_that_own_them() -> None:
    assert set(SCHEMES) == set(THE_SCHEMES)


@pytest.mark.parametrize(
    ("name", "given", "final"),
    [
        ("profile_dir", "/srv/x", Path("/srv/x")),
        ("profile_dir", Path("x"), Path.cwd() / "x"),
        ("profile_dir", "~/x", Path.home() / "x"),
        ("ip", "localhost", "127.0.0.1"),
        ("ip", "*", "*"),
        ("ip", "eth0", "eth0"),
        ("ip", "::1", "[::1]"),
        ("ip", "[2001:DB8:0::1]", "[2001:db8::1]"),
        ("ip", "[fe80::1%eth0]", "[fe80::1%eth0]"),
        ("client_ip", "", ""),
        ("engine_ip", "localhost", "127.0.0.1"),
        ("engine_ports", "7-8", (7, 8)),
        ("ssh_server", "", ""),
        ("ssh_server", "me@gate.example:2222", "me@gate.example:2222"),
        ("curve", True, True),
        ("curve", None, None),
        ("curve_secretkey", Z85, Z85),
        ("curve_secretkey", None, None),
        ("dashboard", None, None),
        ("dashboard", 0, "127.0.0.1:0"),
        ("dashboard", "8788", "127.0.0.1:8788"),
        ("dashboard", "localhost:8788", "127.0.0.1:8788"),
        ("dashboard", "*:80", "0.0.0.0:80"),
        ("dashboard", "10.0.0.1:080", "10.0.0.1:80"),
        ("dashboard", "[::1]:8788", "[::1]:8788"),
        ("dashboard_token", "a-token_of.16~ch", "a-token_of.16~ch"),
        ("dashboard_token", None, None),
        ("dashboard_prefix", "", ""),
        ("dashboard_prefix", "/", ""),
        ("dashboard_prefix", "/user/jo%40x.org/trio-hub/", "/user/jo%40x.org/trio-hub"),
        ("curve_allowed_keys", None, None),
        ("ports", "10000-10002,11000", (10000, 10001, 10002, 11000)),
        ("ports", [11000, "10000-10001"], (11000, 10000, 10001)),
        ("ports", 11000, (11000,)),
        ("ports", (), ()),
        ("ping", 1, 1.0),
        ("registration_timeout", None, None),
        ("stranded_grace", 0, 0.0),
        ("hwm", 0, 0),
        ("db_max_bytes", "2 MiB", 2**21),
        ("db_max_bytes", 7, 7),
        ("db_max_bytes", None, None),
        ("db_max_records", None, None),
        ("db_max_records", 7, 7),
        ("db", None, None),
        ("db", "Memory", DatabaseURL("memory")),
        ("db", "sqlite", DatabaseURL("sqlite")),
        ("db", "sqlite:////srv/tasks.sqlite", DatabaseURL("sqlite:////srv/tasks.sqlite")),
        ("db", "sqlite:///x/y", DatabaseURL(f"sqlite:///{Path.cwd()}/x/y")),
        ("db", "sqlite:///~/y", DatabaseURL(f"sqlite:///{Path.home()}/y")),
        ("db", "postgres://u@h/d", DatabaseURL("postgresql://u@h/d")),
        ("db", "postgresql:///d", DatabaseURL("postgresql:///d")),
        ("durability", "strict", "strict"),
        ("db_keep", None, None),
        ("db_keep", "30d", 30 * 86400.0),
        ("db_keep", "12 h", 43200.0),
        ("db_keep", "1.5W", 10.5 * 86400),
        ("db_keep", "90m", 5400.0),
        ("db_keep", "7s", 7.0),
        ("db_keep", 7, 7.0),
        ("queue_memory", "64MiB", 64 * 2**20),
        ("queue_memory", 1, 1),
        ("subscriber_queue", "32MiB", 32 * 2**20),
        ("engine_command", ["python", "-m", "x"], ("python", "-m", "x")),
        ("engine_tags", ["site=a", "gpu"], ("site=a", "gpu")),
        ("engine_log", "none", "none"),
        ("engine_log", None, None),
        ("packer", "msgpack", "msgpack"),
        ("signature_scheme", "hmac-sha512", "hmac-sha512"),
        ("key", "a-b", "a-b"),
    ],
)
def test_values_get_their_final_form(name: str, given: Any, final: Any) -> None:
    value = getattr(HubConfig(**{name: given}), name)
    assert value == final
    assert type(value) is type(final)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("profile_dir", ""),
        ("profile_dir", 3),
        ("profile_dir", "~no-such-user-here/x"),
        ("cluster_id", "a/b"),
        ("cluster_id", "a b"),
        ("cluster_id", None),
        ("ip", ""),
        ("ip", "tcp://1.2.3.4"),
        ("ip", 1),
        ("ip", ":"),
        ("ip", "[::1"),
        ("ip", "[127.0.0.1]"),
        ("client_ip", None),
        ("engine_ip", "a b"),
        ("client_ports", "0"),
        ("engine_ports", [5, 5.5]),
        ("ssh_server", "-oProxyCommand=x"),
        ("ssh_server", "a b"),
        ("engine_ssh_server", None),
        ("broadcast_ports", 0),
        ("reuse", 1),
        ("restore", "yes"),
        ("curve", "maybe"),
        ("curve_publickey", "short"),
        ("curve_publickey", Z85.encode()),
        ("curve_publickey", "~" * 40),
        ("curve_allowed_keys", ""),
        ("dashboard", ""),
        ("dashboard", True),
        ("dashboard", "http"),
        ("dashboard", ":8788"),
        ("dashboard", 65536),
        ("dashboard", -1),
        ("dashboard", "host:8788"),
        ("dashboard", "::1:8788"),
        ("dashboard", "[::1:8788"),
        ("dashboard_prefix", None),
        ("dashboard_prefix", "trio-hub"),
        ("dashboard_prefix", "//evil.example"),
        ("dashboard_prefix", "/a//"),
        ("dashboard_prefix", "/a/../b"),
        ("dashboard_prefix", "/a/%2E%2e/b"),
        ("dashboard_prefix", "/a%2fb"),
        ("dashboard_prefix", "/a%5Cb"),
        ("dashboard_prefix", "/a%0ab"),
        ("dashboard_prefix", "/a%ff"),
        ("dashboard_prefix", "/a?b"),
        ("dashboard_prefix", "/a;b"),
        ("dashboard_prefix", '/a"b'),
        ("dashboard_prefix", "/\u00fc"),
        ("dashboard_prefix", "/api"),
        ("dashboard_prefix", "/" + 1000 * "a"),
        ("location", "a b"),
        ("ports", "0"),
        ("ports", "9-8"),
        ("ports", "65536"),
        ("ports", "a"),
        ("ports", [0]),
        ("ports", [True]),
        ("ports", [5, "4-6"]),
        ("ports", 3.5),
        ("ping", 0),
        ("ping", -1),
        ("ping", "3"),
        ("ping", True),
        ("ping", None),
        ("ping", math.inf),
        ("ping", math.nan),
        ("max_heartmonitor_misses", 0),
        ("registration_timeout", 0),
        ("stranded_grace", -0.1),
        ("stop_grace", "5"),
        ("hwm", -1),
        ("hwm", 1.0),
        ("hwm", False),
        ("scheme", "fifo"),
        ("db", "mongodb"),
        ("db", "mongodb://h/d"),
        ("db", "oracle"),
        ("db", ""),
        ("db", "sqlite:///"),
        ("db", "sqlite://x"),
        ("db", "sqlite:///~no-such-user-here/x"),
        ("db", "sqlite:///a\0b"),
        ("db", 3),
        ("durability", "fsync"),
        ("durability", None),
        ("db_keep", 0),
        ("db_keep", "0d"),
        ("db_keep", "-1d"),
        ("db_keep", "30 days"),
        ("db_keep", "1y"),
        ("db_keep", True),
        ("db_keep", math.inf),
        ("db_keep", math.nan),
        ("db_keep", "99999w"),
        ("queue_memory", 0),
        ("queue_memory", None),
        ("queue_memory", "much"),
        ("subscriber_queue", 0),
        ("db", ["memory"]),
        ("db_max_records", 0),
        ("db_max_bytes", 0),
        ("db_max_bytes", "1GB"),
        ("db_max_bytes", 1.5),
        ("engines", -1),
        ("engine_command", "python"),
        ("engine_command", [""]),
        ("engine_command", 5),
        ("engine_tags", "site=a"),
        ("engine_tags", ["site a=1"]),
        ("engine_tags", ["gpu="]),
        ("engine_tags", ["gpu=-1"]),
        ("engine_tags", [1]),
        ("engine_log", "here"),
        ("packer", "pickle"),
        ("packer", 3),
        ("signature_scheme", "sha256"),
        ("signature_scheme", "hmac-rot13"),
        ("signature_scheme", None),
        ("log_level", "loud"),
        ("log_format", "xml"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        HubConfig(**{name: value})  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith(f"{name} is {value!r}")
    assert message.endswith(f": expected {RULES[name].accepts}")


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", b"bytes", 5])
def test_a_bad_key_is_refused_and_not_shown(key: object) -> None:
    with pytest.raises(ConfigError, match=r"^key is not usable: expected printable ASCII") as caught:
        HubConfig(key=key)  # type: ignore[arg-type]
    assert not key or str(key) not in str(caught.value)


def test_the_key_is_not_shown() -> None:
    assert "'secret'" not in repr(HubConfig(key="secret"))
    assert Z85 not in repr(HubConfig(curve_secretkey=Z85))
    with pytest.raises(ConfigError, match="curve_secretkey is not usable: expected a CURVE key"):
        HubConfig(curve_secretkey="short")
    assert "a" * 16 not in repr(HubConfig(dashboard_token="a" * 16))
    for token in ("too-short", "with a space in it", "with-an-\u00e4-in-it-and-more"):
        with pytest.raises(ConfigError, match="dashboard_token is not usable: expected 16 or more letters"):
            HubConfig(dashboard_token=token)


# The database


@pytest.mark.parametrize(
    ("settings", "database"),
    [
        ({}, "memory"),
        ({"profile_dir": "/p"}, "sqlite:////p/db/tasks.sqlite"),
        ({"profile_dir": "/p", "cluster_id": "c"}, "sqlite:////p/db/tasks-c.sqlite"),
        ({"profile_dir": "/p", "db": "sqlite"}, "sqlite:////p/db/tasks.sqlite"),
        ({"profile_dir": "/p", "db": "none"}, "none"),
        ({"profile_dir": "/p", "db": "memory"}, "memory"),
        ({"db": "sqlite:////x/y"}, "sqlite:////x/y"),
        ({"db": "postgresql://h/d"}, "postgresql://h/d"),
    ],
)
def test_which_database_it_is(settings: Any, database: str) -> None:
    found = HubConfig(**settings).database
    assert found == database
    assert found.scheme == database.partition(":")[0]
    assert found.path == (Path(database.removeprefix("sqlite:///")) if found.scheme == "sqlite" else None)


def test_a_file_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="no profile_dir is set for its file: set profile_dir, or use sqlite:///PATH"):
        HubConfig(db="sqlite").database  # noqa: B018 - a property that raises


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory", "memory"),
        ("sqlite:////a:b@c?password=d", "sqlite:////a:b@c?password=d"),
        ("postgresql://h:5432/d?sslmode=require", "postgresql://h:5432/d?sslmode=require"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://u:sesame@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:s@same@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:se/sa?me@h/d", "postgresql://u:***@h/d"),
        ("postgresql:///d?user=u&password=sesame&sslmode=x", "postgresql:///d?user=u&password=***&sslmode=x"),
        ("postgresql:///d?sslpassword=ses@me", "postgresql:///d?sslpassword=***"),
        ("postgresql:///d?pass%77ord=sesame", "postgresql:///d?pass%77ord=***"),
        ("mysql://u:sesame@h/d", "mysql://u:***@h/d"),
    ],
)
def test_passwords_of_databases_are_not_shown(url: str, shown: str) -> None:
    assert DatabaseURL(url).shown == shown
    assert repr(DatabaseURL(url)) == repr(shown)
    assert str(DatabaseURL(url)) == url
    if url.startswith("postgresql"):
        config = HubConfig(db=url)
        assert f"db={shown!r}" in repr(config)
        assert config.database == url
    elif url.startswith("mysql"):
        with pytest.raises(ConfigError) as caught:
            HubConfig(db=url)
        assert str(caught.value).startswith(f"db is {shown!r}: expected sqlite")


def test_a_database_in_a_file_is_relative_to_the_file(toml: Any) -> None:
    file = toml('db = "sqlite:///x/tasks.sqlite"')
    assert load({}, {}, file).database.path == file.parent / "x" / "tasks.sqlite"
    assert load({"db": "sqlite:///tasks.sqlite"}, {}, file).database.path == Path.cwd() / "tasks.sqlite"


def test_what_takes_the_place_of_mongodb_is_told() -> None:
    with pytest.raises(ConfigError, match="MongoDB is not supported: use sqlite or postgresql"):
        HubConfig(db="mongodb://h")


# Several settings


def test_addresses_of_one_side_are_those_of_both_unless_set() -> None:
    config = HubConfig(ip="*", client_ip="10.0.0.1")
    addresses = (config.client_address, config.engine_address)
    assert addresses == ("10.0.0.1", "*")


def test_engines_are_restored_at_the_ports_they_know() -> None:
    assert HubConfig(restore=True).reuse


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"curve": True, "curve_publickey": "a" * 40}, "curve_publickey is set without curve_secretkey"),
        ({"curve_allowed_keys": "keys"}, "curve_allowed_keys is set, but curve is off"),
        ({"scheme": "pure", "hwm": 2}, "hwm is 2, but the scheme pure has no limit"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HubConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "encrypted"),
    [
        ({}, False),
        ({"ip": "127.0.0.2"}, False),
        ({"ip": "localhost"}, False),
        ({"ip": "lo"}, False),
        ({"ip": "::1"}, False),
        ({"client_ip": "127.0.0.3", "engine_ip": "[::1]"}, False),
        ({"ip": "*", "client_ip": "127.0.0.1", "engine_ip": "127.0.0.1"}, False),
        ({"ip": "*"}, True),
        ({"ip": "0.0.0.0"}, True),
        ({"ip": "::"}, True),
        ({"ip": "eth0"}, True),
        ({"ip": "10.0.0.1"}, True),
        ({"client_ip": "*"}, True),
        ({"engine_ip": "10.0.0.1"}, True),
        ({"ip": "*", "ssh_server": "gate", "engine_ssh_server": "gate"}, True),
        ({"ip": "*", "curve": False}, False),
        ({"curve": True}, True),
    ],
)
def test_connections_are_encrypted_beyond_this_machine_unless_told_otherwise(settings: Any, encrypted: bool) -> None:
    config = HubConfig(**settings)
    assert config.encrypted is encrypted
    assert config.curve is settings.get("curve"), "what was given is kept"


def test_encryption_is_settled_before_what_goes_with_it_is_checked() -> None:
    assert HubConfig(ip="*", curve_allowed_keys=Path("keys")).encrypted
    with pytest.raises(ConfigError, match="curve_allowed_keys is set, but curve is off"):
        HubConfig(ip="*", curve=False, curve_allowed_keys=Path("keys"))
    with pytest.raises(ConfigError, match="curve_publickey is set without curve_secretkey"):
        HubConfig(ip="*", curve_publickey=Z85)


@pytest.mark.parametrize(
    ("cli", "environ", "text"),
    [
        ({"curve": "false"}, {}, ""),
        ({}, {"TRIO_HUB_CURVE": "false"}, ""),
        ({}, {"IPP_ENABLE_CURVE": "0"}, ""),
        ({}, {}, "curve = false"),
    ],
)
def test_every_place_can_say_no_to_encryption(cli: Any, environ: Any, text: str, toml: Any) -> None:
    assert load({"ip": "*"}).encrypted
    assert not load({"ip": "*"} | cli, environ, toml(text)).encrypted


def test_a_command_may_have_defaults_of_its_own(toml: Any) -> None:
    def loaded(cli: dict[str, object], environ: dict[str, str], file: Path | None) -> HubConfig:
        return load_config({"ip": "*"} | cli, environ, file, defaults={"curve": False})

    assert not loaded({}, {}, None).encrypted
    assert loaded({"curve": "true"}, {}, None).encrypted
    assert loaded({}, {"IPP_ENABLE_CURVE": "1"}, None).encrypted
    assert loaded({}, {}, toml("curve = true")).encrypted


@pytest.mark.parametrize("settings", [{}, {"hwm": 0}, {"hwm": 1}])
def test_the_pure_scheme_has_no_limit(settings: Any) -> None:
    assert HubConfig(scheme="pure", **settings).hwm == 0


def test_why_pickle_is_refused_is_told() -> None:
    with pytest.raises(ConfigError, match="unpickling a header runs"):
        HubConfig(packer="pickle")


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [({}, 30.0), ({"ping": 5}, 50.0), ({"ping": 0.1}, 30.0), ({"ping": 5, "registration_timeout": 2}, 2.0)],
)
def test_the_registration_timeout_follows_the_ping(settings: Any, seconds: float) -> None:
    assert HubConfig(**settings).registration_timeout_seconds == seconds


# Precedence


def test_without_anything_it_is_the_default_profile() -> None:
    assert load({}, {"IPYTHONDIR": "/ipy"}) == HubConfig(profile_dir=Path("/ipy/profile_default"))


def test_the_command_line_counts_most_then_the_environment_then_the_file(toml: Any) -> None:
    file = toml("ping = 1\nhwm = 1\nengines = 1\nmax_heartmonitor_misses = 1")
    environ = {"TRIO_HUB_PING": "2", "TRIO_HUB_HWM": "2"}
    config = load({"ping": "3", "engines": None}, environ, file)
    assert (config.ping, config.hwm, config.engines, config.max_heartmonitor_misses) == (3.0, 2, 1, 1)
    assert config.stop_grace == HubConfig().stop_grace


def test_stock_variables_count_between_ours_and_the_file(toml: Any) -> None:
    stock = {"IPP_PROFILE_DIR": "/stock", "IPP_CLUSTER_ID": "stock", "IPP_SESSION_KEY": "stock-key"}
    stock |= {"IPP_ENABLE_CURVE": "1", "IPP_CURVE_PUBLICKEY": "b" * 40, "IPP_CURVE_SECRETKEY": "c" * 40}
    file = toml('profile_dir = "/file"\ncluster_id = "file"\nkey = "file-key"')
    config = load({}, stock, file)
    assert (config.profile_dir, config.cluster_id, config.key) == (Path("/stock"), "stock", "stock-key")
    assert (config.curve, config.curve_publickey, config.curve_secretkey) == (True, "b" * 40, "c" * 40)
    ours = {"TRIO_HUB_PROFILE_DIR": "/ours", "TRIO_HUB_CLUSTER_ID": "ours", "TRIO_HUB_KEY": "our-key"}
    ours |= {"TRIO_HUB_CURVE": "off"}
    config = load({}, stock | ours, file)
    assert (config.profile_dir, config.cluster_id, config.key) == (Path("/ours"), "ours", "our-key")
    assert not config.curve


def test_empty_variables_are_not_set(toml: Any) -> None:
    config = load({}, {"TRIO_HUB_PING": "", "IPP_CLUSTER_ID": "", "TRIO_HUB_CONFIG": ""}, toml("ping = 2"))
    assert config.ping == 2.0
    assert config.cluster_id == ""


def test_the_file_can_be_named_by_a_variable(toml: Any, tmp_path: Path) -> None:
    file = toml("ping = 2")
    assert load({}, {"TRIO_HUB_CONFIG": str(file)}).ping == 2.0
    other = tmp_path / "other.toml"
    other.write_text("ping = 4")
    assert load({}, {"TRIO_HUB_CONFIG": str(file)}, other).ping == 4.0


def test_every_setting_can_come_from_everywhere(toml: Any) -> None:
    table = """
        profile_dir = "p"
        cluster_id = "c"
        ip = "*"
        client_ip = "::1"
        engine_ip = "eth0"
        location = "here"
        ports = ["10000-10001", 10005]
        client_ports = 10006
        engine_ports = [10007]
        broadcast_ports = 2
        max_message_frames = 200
        max_message_bytes = "3MiB"
        ssh_server = "me@gate"
        engine_ssh_server = "gate:2222"
        reuse = true
        restore = true
        force = true
        curve = true
        curve_publickey = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        curve_secretkey = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
        curve_allowed_keys = "keys.txt"
        ping = 1
        max_heartmonitor_misses = 2
        registration_timeout = 3
        stranded_grace = 4.5
        stop_grace = 5.5
        hwm = 6
        scheme = "lru"
        unmet_timeout = 600
        db = "none"
        durability = "strict"
        db_keep = "30d"
        queue_memory = "1GiB"
        subscriber_queue = "32MiB"
        db_max_records = 7
        db_max_bytes = "8KiB"
        engines = 9
        engine_command = ["a b", "c"]
        engine_tags = ["site=a", "gpu=1"]
        engine_log = "none"
        key = "k"
        packer = "msgpack"
        signature_scheme = "hmac-sha512"
        dashboard = 8788
        dashboard_token = "0123456789abcdef"
        dashboard_admin = true
        dashboard_prefix = "/hub"
        log_level = "debug"
        log_format = "json"

        [[policy]]
        name = "night"
        label = "night-*"
        priority = -5

        [[pool]]
        name = "gpu"
        launcher = "slurm"
        max = 8
        time_limit = "2h"
        traits.queue = "long"
    """
    text = {
        "cluster_id": "c",
        "ip": "*",
        "client_ip": "[::1]",
        "engine_ip": "eth0",
        "location": "here",
        "ports": "10000-10001,10005",
        "client_ports": "10006",
        "engine_ports": "10007",
        "broadcast_ports": "2",
        "max_message_frames": "200",
        "max_message_bytes": "3 MiB",
        "ssh_server": "me@gate",
        "engine_ssh_server": "gate:2222",
        "reuse": "1",
        "restore": "Yes",
        "force": "on",
        "curve": "on",
        "curve_publickey": "a" * 40,
        "curve_secretkey": "b" * 40,
        "ping": "1",
        "max_heartmonitor_misses": "2",
        "registration_timeout": "3",
        "stranded_grace": "4.5",
        "stop_grace": "5.5",
        "hwm": "6",
        "scheme": "LRU",
        "unmet_timeout": "600",
        "policies": '[{"name": "night", "label": "night-*", "priority": -5}]',
        "pools": "name=gpu,launcher=slurm,max=8,time_limit=2h,traits.queue=long",
        "db": "none",
        "durability": "strict",
        "db_keep": "30D",
        "queue_memory": "1024 mib",
        "subscriber_queue": "32 MiB",
        "db_max_records": "7",
        "db_max_bytes": "8kib",
        "engines": "9",
        "engine_command": "'a b' c",
        "engine_tags": "site=a gpu=1",
        "engine_log": "None",
        "key": "k",
        "packer": "msgpack",
        "signature_scheme": "hmac-sha512",
        "dashboard": "8788",
        "dashboard_token": "0123456789abcdef",
        "dashboard_admin": "yes",
        "dashboard_prefix": "/hub/",
        "log_level": "DEBUG",
        "log_format": "json",
    }
    file = toml(table)
    text["profile_dir"] = str(file.parent / "p")
    text["curve_allowed_keys"] = str(file.parent / "keys.txt")
    assert set(text) == set(RULES), "a new setting belongs into this test"
    config = load({}, {}, file)
    defaults = HubConfig()
    assert not [name for name in RULES if getattr(config, name) == getattr(defaults, name)]
    assert load(text) == config
    assert hash(load(text)) == hash(config)
    assert load({}, {f"TRIO_HUB_{name.upper()}": value for name, value in text.items()}) == config


# Policies

NIGHT = {"name": "night", "label": "night-*", "priority": -5}


def test_policies_are_tables_in_the_file(toml: Any) -> None:
    table = """
        [[policy]]
        name = "night"
        label = "night-*"
        priority = -5

        [[policy]]
        name = "gpu"
        function = "train"
        needs = { gpu = 1, memory = "32G" }
        label.kind = "big"
    """
    night, gpu = load({}, {}, toml(table)).policies
    assert night.as_dict() == NIGHT
    assert (gpu.function, gpu.label, gpu.said) == ("train", {"kind": "big"}, {"needs": {"gpu": 1, "memory": "32G"}})
    assert HubConfig(policies=[NIGHT, gpu]).policies == (night, gpu)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("[[policy]]", ", number 1: a policy must have a name"),
        (
            '[[policy]]\nname = "a"\npriority = 1\n[[policy]]\nname = "b"\npriority = 1.5',
            ", number 2: policy 'b': priority is '1.5': it must be a whole number from -1000 to 1000",
        ),
        (
            '[[policy]]\nname = "a"\npriority = 1\n[[policy]]\nname = "a"\npriority = 2',
            ", number 2: there is a policy 'a' already: use another",
        ),
        ('[policy]\nname = "a"', ' is \'{"name": "a"}\': expected a list of tables, each with a name, conditions and'),
        ("policy = 3", " is '3': expected a list of tables"),
    ],
)
def test_a_wrong_policy_is_refused_by_its_place(toml: Any, table: str, told: str) -> None:
    file = toml(table)
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file)
    assert str(caught.value).startswith(f"[[policy]] in {file}{told}")


def test_policies_are_written_in_one_way(toml: Any) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        load({}, {}, toml('policies = []\n[[policy]]\nname = "a"\npriority = 1'))
    with pytest.raises(ConfigError, match=r"^'polcy' in .* is not a setting: did you mean policy\?"):
        load({}, {}, toml('[[polcy]]\nname = "a"'))
    with pytest.raises(ConfigError, match=r"^policies is 'x': expected a list of tables"):
        HubConfig(policies="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^TRIO_HUB_POLICIES is 'x': expected a list of tables"):
        load({}, {"TRIO_HUB_POLICIES": "x"})


# Profiles


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"IPYTHONDIR": "/ipy", "HOME": "/h"}, "/ipy/profile_x"),
        ({"HOME": "/h"}, "/h/.ipython/profile_x"),
        ({"IPYTHONDIR": "", "HOME": "/h"}, "/h/.ipython/profile_x"),
    ],
)
def test_where_profiles_are(environ: dict[str, str], directory: str) -> None:
    assert load({"profile": "x"}, environ).profile_dir == Path(directory)
    assert load({}, environ | {"TRIO_HUB_PROFILE": "x"}).profile_dir == Path(directory)


def test_the_directory_of_old_ipythons_is_found(tmp_path: Path) -> None:
    old = tmp_path / ".config" / "ipython"
    old.mkdir(parents=True)
    environ = {"HOME": str(tmp_path)}
    assert profile_directory("x", environ) == old / "profile_x"
    assert profile_directory("x", environ | {"XDG_CONFIG_HOME": "/none"}) == tmp_path / ".ipython" / "profile_x"
    (tmp_path / ".ipython").mkdir()
    assert profile_directory("x", environ) == tmp_path / ".ipython" / "profile_x"


def test_ipython_looks_for_profiles_in_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pytest.importorskip("IPython.paths")
    monkeypatch.delenv("IPYTHONDIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    environ = {"HOME": str(tmp_path)}
    (tmp_path / ".config" / "ipython").mkdir(parents=True)
    assert profile_directory("x", environ).parent == Path(paths.get_ipython_dir())
    (tmp_path / ".config" / "ipython").rmdir()
    assert profile_directory("x", environ).parent == Path(paths.get_ipython_dir())


def test_a_profile_replaces_a_directory_from_a_place_that_counts_less(toml: Any) -> None:
    file = toml('profile_dir = "/file"')
    assert load({"profile": "x"}, {"HOME": "/h"}, file).profile_dir == Path("/h/.ipython/profile_x")
    assert load({"profile_dir": "/cli"}, {"TRIO_HUB_PROFILE": "x"}, file).profile_dir == Path("/cli")


def test_a_directory_in_the_file_is_relative_to_the_file(toml: Any) -> None:
    file = toml('profile_dir = "p"')
    assert load({}, {}, file).profile_dir == file.parent / "p"


@pytest.mark.parametrize(
    ("cli", "environ", "table", "message"),
    [
        ({"profile": "x", "profile_dir": "y"}, {}, "", "--profile and --profile-dir exclude each other"),
        (
            {},
            {"TRIO_HUB_PROFILE": "x", "TRIO_HUB_PROFILE_DIR": "y"},
            "",
            "TRIO_HUB_PROFILE and TRIO_HUB_PROFILE_DIR exclude each other",
        ),
        (
            {},
            {},
            'profile="x"\nprofile_dir="y"',
            "profile in .*hub.toml and profile_dir in .*hub.toml exclude",
        ),
        ({"profile": "a/b"}, {}, "", "--profile is 'a/b': expected a name"),
        ({}, {}, "profile = 3", "profile in .*hub.toml is 3: expected a name"),
    ],
)
def test_what_cannot_be_a_profile_is_refused(
    cli: dict[str, Any], environ: dict[str, str], table: str, message: str, toml: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(cli, environ, toml(table))


# Refusals name the place


@pytest.mark.parametrize(
    ("cli", "environ", "table", "message"),
    [
        ({"ping": "soon"}, {}, "", r"^--ping is 'soon': expected a number of seconds, above 0$"),
        ({"log_level": "loud"}, {}, "", r"^--log-level is 'loud': expected one of debug, info"),
        ({"pnig": "1"}, {}, "", r"^option --pnig is not a setting: did you mean ping\?$"),
        ({}, {"TRIO_HUB_PING": "-1"}, "", r"^TRIO_HUB_PING is -1.0: expected"),
        ({}, {"TRIO_HUB_HWM": "1.5"}, "", r"^TRIO_HUB_HWM is '1.5': expected a whole number"),
        ({}, {"TRIO_HUB_PORTS": "1-2-3"}, "", r"^TRIO_HUB_PORTS is '1-2-3': expected ports"),
        (
            {},
            {"TRIO_HUB_PORTS": "5,5"},
            "",
            r"^TRIO_HUB_PORTS is \(5, 5\) \(port 5 is given twice\): expected",
        ),
        ({}, {"TRIO_HUB_ENGINE_COMMAND": "'a"}, "", r"^TRIO_HUB_ENGINE_COMMAND is \"'a\": expected a list"),
        ({}, {"TRIO_HUB_DB_MAX_BYTES": "much"}, "", r"^TRIO_HUB_DB_MAX_BYTES is 'much': expected"),
        ({}, {"TRIO_HUB_KEY": "a b"}, "", r"^TRIO_HUB_KEY is not usable: expected"),
        ({}, {"IPP_SESSION_KEY": "a b"}, "", r"^IPP_SESSION_KEY is not usable: expected"),
        ({}, {"IPP_CLUSTER_ID": "a/b"}, "", r"^IPP_CLUSTER_ID is 'a/b': expected"),
        ({}, {"IPP_ENABLE_CURVE": "maybe"}, "", r"^IPP_ENABLE_CURVE is 'maybe': expected true or false$"),
        ({}, {"IPP_CURVE_SECRETKEY": "short"}, "", r"^IPP_CURVE_SECRETKEY is not usable: expected a CURVE key"),
        (
            {},
            {"TRIO_HUB_PNIG": "1"},
            "",
            r"^the environment variable TRIO_HUB_PNIG is not a setting: did you mean TRIO_HUB_PING\?$",
        ),
        (
            {},
            {"TRIO_HUB_ping": "1"},
            "",
            r"variable TRIO_HUB_ping is not a setting: did you mean TRIO_HUB_PING\?$",
        ),
        ({}, {"TRIO_HUB_CONFG": "x"}, "", r"did you mean TRIO_HUB_CONFIG\?$"),
        (
            {},
            {"TRIO_HUB_XYZZY": ""},
            "",
            r"TRIO_HUB_XYZZY is not a setting: the settings are TRIO_HUB_BROADCAST_PORTS, .*",
        ),
        ({}, {}, "pnig = 1", r"^'pnig' in .*hub\.toml is not a setting: did you mean ping\?$"),
        ({}, {}, "[hub]\nping = 1", r"^'hub' in .*hub\.toml is not a setting"),
        (
            {},
            {},
            "log-level = 'info'",
            r"^'log-level' in .*hub\.toml is not a setting: did you mean log_level\?$",
        ),
        ({}, {}, "ping = '3'", r"^ping in .*hub\.toml is '3': expected a number of seconds, above 0$"),
        ({}, {}, "hwm = true", r"^hwm in .*hub\.toml is True: expected a whole number"),
        ({}, {}, "profile_dir = 3", r"^profile_dir in .*hub\.toml is 3: expected a directory$"),
        ({}, {}, "ping = ", r"^--config: .*hub\.toml is not TOML: "),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    cli: dict[str, Any], environ: dict[str, str], table: str, message: str, toml: Any
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(cli, environ, toml(table))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=f"^--config: cannot read {file}: No such file"):
        load({}, {}, file)
    with pytest.raises(ConfigError, match=f"^TRIO_HUB_CONFIG: cannot read {file}: No such file"):
        load({}, {"TRIO_HUB_CONFIG": str(file)})
    file.write_bytes(b"location = '\xff'")
    with pytest.raises(ConfigError, match="is not TOML"):
        load({}, {}, file)


def test_a_bad_value_is_refused_even_where_a_better_place_gives_another(toml: Any) -> None:
    with pytest.raises(ConfigError, match=r"^ping in "):
        load({"ping": "3"}, {}, toml("ping = 0"))
