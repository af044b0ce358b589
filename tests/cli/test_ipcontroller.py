"""Translating ipcontroller's command lines, config files and environment."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from trio_hub.cli.translate import translate
from trio_hub.cli.translation import Translation
from trio_hub.config import HubConfig
from trio_hub.errors import ConfigError

SECRET_KEY = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
Run = Callable[..., Translation]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}


@pytest.fixture
def run(environ: dict[str, str]) -> Run:
    return lambda *arguments, **variables: translate(arguments, environ | variables)


@pytest.fixture
def profile(environ: dict[str, str]) -> Path:
    path = Path(environ["IPYTHONDIR"]) / "profile_default"
    path.mkdir(parents=True)
    return path


def changed(translation: Translation) -> dict[str, object]:
    """Return the settings that differ from the defaults, without the profile."""
    config, usual = translation.config(), HubConfig()
    values = {name: getattr(config, name) for name in vars(usual)} | {"db": config.database}
    usual_values = vars(usual) | {"db": "memory", "curve": False}
    return {name: value for name, value in values.items() if value != usual_values[name] and name != "profile_dir"}


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ([], {}),
        (["--ping=1500"], {"ping": 1.5}),
        (["--ping", "250", "--hwm", "0"], {"ping": 0.25, "hwm": 0}),
        (["--HeartMonitor.period=1500"], {"ping": 1.5}),
        (["--HeartMonitor.max_heartmonitor_misses=3"], {"max_heartmonitor_misses": 3}),
        (["-TaskScheduler.hwm", "7"], {"hwm": 7}),
        (["--IPController.HeartMonitor.period=1500"], {"ping": 1.5}),
        (["--scheme=lru"], {"scheme": "lru"}),
        (["--cluster-id", "two", "--location=head.example.org"], {"cluster_id": "two", "location": "head.example.org"}),
        (["--ip=*"], {"ip": "*"}),
        (["--ip='*'"], {"ip": "*"}),
        (["--ip=10.0.0.1", "--IPController.engine_ip=10.0.0.2"], {"ip": "10.0.0.1", "engine_ip": "10.0.0.2"}),
        (["--IPController.client_ip=10.0.0.2"], {"client_ip": "10.0.0.2"}),
        (["--ports=10-12,20"], {"ports": (10, 11, 12, 20)}),
        (["--ports=10-12", "--ports=20"], {"ports": (10, 11, 12, 20)}),
        (["--port=10101"], {"engine_ports": (10101,)}),
        (["--port=9", "--IPController.engine_ports=10-11"], {"engine_ports": (10, 11, 9)}),
        (["--IPController.client_ports=10", "--IPController.notifier_port=11"], {"client_ports": (10, 11)}),
        (["--IPController.mux=(1, 2)"], {"client_ports": (1,), "engine_ports": (2,)}),
        (["--port=1", "--IPController.hb", "(3, 4)"], {"engine_ports": (1, 3, 4)}),
        (["--IPController.task=5", "--IPController.task=6"], {"client_ports": (5,), "engine_ports": (6,)}),
        (["--ssh=me@gate", "--enginessh=gate2"], {"ssh_server": "me@gate", "engine_ssh_server": "gate2"}),
        (["--dictdb"], {}),
        (["--nodb"], {"db": "none"}),
        (["--dictdb", "--nodb"], {"db": "none"}),
        (["--IPController.db_class=NoDB"], {"db": "none"}),
        (["--IPController.db_class=ipyparallel.controller.dictdb.NoDB"], {"db": "none"}),
        (["--DictDB.record_limit=5", "--DictDB.size_limit=1000"], {"db_max_records": 5, "db_max_bytes": 1000}),
        (["--BaseDB.record_limit=5"], {"db_max_records": 5}),
        (["--reuse"], {"reuse": True}),
        (["--restore"], {"reuse": True, "restore": True}),
        (["--IPController.reuse_files=true"], {"reuse": True}),
        (["--log-level=DEBUG"], {"log_level": "debug"}),
        (["--log-level=30"], {"log_level": "warning"}),
        (["--log-level", "warn"], {"log_level": "warning"}),
        (["--log-level=0"], {"log_level": "debug"}),
        (["--debug"], {"log_level": "debug"}),
        (["--quiet"], {"log_level": "critical"}),
        (["--debug", "--log-level=ERROR"], {"log_level": "debug"}),  # flags count more, wherever they stand
        (["--IPController.registration_timeout=60"], {"registration_timeout": 60.0}),
        (["--IPController.registration_timeout=0"], {}),
        (["--IPController.broadcast_scheduler_depth=3"], {"broadcast_ports": 8}),
        (["--IPController.enable_curve=True"], {"curve": True}),
        (["--IPController.curve_secretkey=b'" + SECRET_KEY + "'"], {"curve_secretkey": SECRET_KEY}),
        (["--Session.key=mine"], {"key": "mine"}),
        (["--Session.packer=msgpack"], {"packer": "msgpack"}),
        (["--Session.unpacker=msgpack"], {"packer": "msgpack"}),
        (["--Session.signature_scheme=hmac-sha512"], {"signature_scheme": "hmac-sha512"}),
        (["--transport=tcp"], {}),
        (["--Application.log_level=10"], {"log_level": "debug"}),
        (["--HubFactory.ip=10.0.0.1"], {"ip": "10.0.0.1"}),
        (["--HubFactory.ip=10.0.0.1", "--ip=10.0.0.2"], {"ip": "10.0.0.2"}),
    ],
)  # fmt: skip
def test_what_has_an_equal_is_that(run: Run, arguments: list[str], settings: dict[str, object]) -> None:
    translation = run(*arguments)
    assert changed(translation) == settings
    assert translation.remarks == []


@pytest.mark.parametrize(
    ("arguments", "remark"),
    [
        (["--usethreads"], "--usethreads: all schedulers run in one thread"),
        (["--no-secure"], "--no-secure: messages are always signed"),
        (["--init"], "--init: no config file is written"),
        (["--log-url=tcp://127.0.0.1:1"], "--log-url: logs are not published"),
        (["--transport=ipc"], "--transport: all connections are TCP"),
        (["--Session.packer=pickle"], "--Session.packer: the packer can be json, orjson or msgpack; json is used"),
        (["--Session.packer=json", "--Session.unpacker=msgpack"], "--Session.unpacker: .*; --Session.packer is used"),
        (["--ident=x"], "--ident: the hub chooses its own session id"),
        (["--MongoDB.database=x"], "--MongoDB.database: MongoDB is not supported; .* .--sqlitedb., PostgreSQL"),
        (["--SQLiteDB.filename=x.db"], "--SQLiteDB.filename: records are not kept in SQLite; use --sqlitedb for that"),
        (["--SQLiteDB.location=/x"], "--SQLiteDB.location: records are not kept in SQLite"),
        (["--SQLiteDB.table=x"], "--SQLiteDB.table: a file has one table, .*; to separate them, use another file"),
        (["--pnig=3"], r"--pnig: ipcontroller has no such option; did you mean --ping\?"),
        (["--pnig", "3"], r"--pnig: ipcontroller has no such option; did you mean --ping\?"),
        (["--usethread"], r"--usethread: ipcontroller has no such option; did you mean --usethreads\?"),
        (["--xyzzy"], "--xyzzy: ipcontroller has no such option"),
        (
            ["--TaskScheduler.hmw=3"],
            r"--TaskScheduler.hmw: ipcontroller has no such trait; did you mean TaskScheduler.hwm\?",
        ),
        (
            ["--TaskSheduler.hwm=3"],
            r"--TaskSheduler.hwm: ipcontroller has no such trait; did you mean TaskScheduler.hwm\?",
        ),
        (["--Hub.registration_timeout=3"], "--Hub.registration_timeout: ipcontroller has no such trait"),
        (["--IPEngine.timeout=3"], "--IPEngine.timeout: ipcontroller has no such class"),
        (["extra"], "extra: not an option"),
        (["--", "--hwm=3"], "--hwm=3: not an option"),
        (["--profile=a", "--profile-dir=b"], "--profile: --profile-dir takes precedence"),
    ],
)  # fmt: skip
def test_what_has_none_is_named(run: Run, arguments: list[str], remark: str) -> None:
    translation = run(*arguments)
    assert changed(translation) == {}
    (found,) = translation.remarks
    assert re.fullmatch(f"{remark}.*", found), found
    assert translation.warning() == f"these settings have no effect here: {found}"


def test_all_remarks_are_in_one_warning(run: Run) -> None:
    translation = run("--usethreads", "--pnig=3", "extra", "--hwm=2")
    assert changed(translation) == {"hwm": 2}
    assert translation.warning().count("; ") >= 2
    assert all(word in translation.warning() for word in ("--usethreads", "--pnig", "extra"))


def test_saying_what_is_so_anyway_is_no_remark(run: Run) -> None:
    assert run("--Session.copy_threshold=65536", "--Session.debug=false", "--transport=tcp").remarks == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mongodb"], "--mongodb is 'MongoDB', which is not supported: use .*SQLite.*PostgreSQL"),
        (["--IPController.db_class=lab.OurDB"], "--IPController.db_class is 'lab.OurDB', which is not supported"),
        (["--hwm"], "--hwm needs a value"),
        (["--hwm", "--debug"], "--hwm needs a value"),
        (["--debug=1"], "--debug takes no value"),
        (["--ping=1.5"], "--ping is '1.5': expected a whole number"),
        (["--ping=0"], "--ping is 0: expected a number of seconds, above 0"),
        (["--hwm=-1"], "--hwm is -1: expected a whole number, 0 or more"),
        (["--hwm", "-1"], "--hwm is -1: expected a whole number, 0 or more"),
        (["--scheme=best"], "--scheme is 'best': expected one of"),
        (["--log-level=loud"], "--log-level is 'loud': expected one of 0, 10"),
        (["--log-level=15"], "--log-level is '15': expected one of 0, 10"),
        (["--ports=10-x"], "--ports is '10-x': expected ports"),
        (["--ports=10,10"], "--ports is .*port 10 is given twice"),
        (["--IPController.mux=(1,)"], "--IPController.mux is .*: expected two ports"),
        (["--IPController.mux=(1"], "--IPController.mux is .*: expected two ports"),
        (["--IPController.reuse_files=maybe"], "--IPController.reuse_files is 'maybe': expected true or false"),
        (["--IPController.broadcast_scheduler_depth=99"], "depth is 99: expected a whole number from 0 to 10"),
        (["--Session.key=two words"], "--Session.key is not usable: expected printable"),
        (["--keyfile=/nowhere/key"], "--keyfile: cannot read a key from /nowhere/key"),
        (["--config=nowhere.py"], "--config: nowhere.py is neither in .* nor in the working directory"),
        (["--cluster-id=a b"], "--cluster-id is 'a b': expected a name without spaces"),
    ],
)
def test_what_cannot_be_used_is_refused(run: Run, arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(*arguments)


def test_the_log_file_is_a_flag_and_an_option(run: Run) -> None:
    for arguments, wanted in (
        (["--log-to-file"], True),
        (["--log-to-file=False"], False),
        (["--log-to-file", "true", "--clean-logs=True"], True),
        (["--log-to-file", "--debug"], True),
        (["--log-to"], True),
    ):
        assert run(*arguments).process["log_to_file"].value is wanted


def test_a_key_can_be_in_a_file_or_fresh(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from the file".replace(" ", "-") + "\n")
    assert run(f"--keyfile={file}", "--Session.key=other").config().key == "from-the-file"
    first, second = (run(f"--keyfile={file}", "--secure", IPP_SESSION_KEY="old").config().key for _ in range(2))
    assert len({first, second, "old", "from-the-file", None}) == 5


# Databases


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["--sqlitedb"], "{profile}/db/tasks.sqlite"),
        (["--sqlitedb", "--cluster-id=two"], "{profile}/db/tasks-two.sqlite"),
        (["--IPController.db_class=ipyparallel.controller.sqlitedb.SQLiteDB"], "{profile}/db/tasks.sqlite"),
        (["--sqlitedb", "--SQLiteDB.filename=tasks.db", "--SQLiteDB.location="], "{profile}/db/tasks.sqlite"),
        (["--sqlitedb", "--SQLiteDB.filename=mine.db"], "{profile}/mine.db"),
        (["--sqlitedb", "--SQLiteDB.filename=/x/mine.db"], "/x/mine.db"),
        (["--sqlitedb", "--SQLiteDB.filename=/x/mine.db", "--SQLiteDB.location=/y"], "/x/mine.db"),
        (["--sqlitedb", "--SQLiteDB.filename=mine.db", "--SQLiteDB.location=/x"], "/x/mine.db"),
        (["--sqlitedb", "--SQLiteDB.location=/x"], "/x/tasks.sqlite"),
        (["--sqlitedb", "--SQLiteDB.location=/x", "--cluster-id=two"], "/x/tasks-two.sqlite"),
        (["--sqlitedb", "--SQLiteDB.location=x"], "{here}/x/tasks.sqlite"),
        (["--sqlitedb", "--SQLiteDB.location=x", "--work-dir=/w"], "/w/x/tasks.sqlite"),
    ],
)
def test_an_sqlite_file_is_where_it_is_asked_for(run: Run, profile: Path, arguments: list[str], path: str) -> None:
    translation = run(*arguments)
    expected = Path(path.format(profile=profile, here=Path.cwd()))
    assert translation.config().database.path == expected
    assert translation.warning() == ""


@pytest.mark.parametrize("located", [True, False])
def test_the_file_of_ipcontroller_is_left_alone_and_that_is_told_once(run: Run, profile: Path, located: bool) -> None:
    (profile / "tasks.db").touch()
    translation = run("--sqlitedb", "--usethread", *([f"--SQLiteDB.location={profile}"] if located else []))
    path = profile / "tasks.sqlite" if located else profile / "db" / "tasks.sqlite"
    assert translation.config().database.path == path
    assert translation.warning() == (
        "these settings have no effect here: --usethread: ipcontroller has no such option; did you mean --usethreads?. "
        f"task records are written to {path}; {profile / 'tasks.db'}, which has ipcontroller's format, is not used"
    )


def test_a_file_names_the_sqlite_file_unless_the_environment_does(run: Run, profile: Path) -> None:
    file = profile / "ipcontroller_config.py"
    file.write_text("c.IPController.db_class = 'SQLiteDB'\nc.SQLiteDB.filename = 'mine.db'")
    translation = run()
    assert changed(translation) == {"db": f"sqlite:///{profile}/mine.db"}
    assert translation.settings["db"].label == f"SQLiteDB.filename in {file}"
    assert changed(run(TRIO_HUB_DB="none")) == {"db": "none"}
    assert changed(run("--sqlitedb", TRIO_HUB_DB="none"))["db"] == f"sqlite:///{profile}/db/tasks.sqlite"
    assert changed(run("--dictdb")) == {}


def test_our_own_variables_reach_every_database(run: Run, tmp_path: Path) -> None:
    settings = changed(run(TRIO_HUB_DB="postgresql://h/d", TRIO_HUB_DURABILITY="strict", TRIO_HUB_DB_KEEP="1h"))
    assert settings == {"db": "postgresql://h/d", "durability": "strict", "db_keep": 3600.0}
    file = tmp_path / "hub.toml"
    file.write_text('db = "sqlite:////x/y"')
    assert changed(run(TRIO_HUB_CONFIG=str(file))) == {"db": "sqlite:////x/y"}


@pytest.mark.parametrize(("arguments", "variables"), [(["--sqlitedb"], {}), ([], {"TRIO_HUB_DB": "postgresql://h/d"})])
def test_limits_of_memory_are_not_those_of_a_disk(run: Run, arguments: list[str], variables: dict[str, str]) -> None:
    translation = run("--DictDB.record_limit=5", "--DictDB.size_limit=1000", *arguments, **variables)
    config = translation.config()
    assert (config.db_max_records, config.db_max_bytes) == (None, None)
    assert translation.remarks == [
        "--DictDB.record_limit: this limits only records in memory; use TRIO_HUB_DB_MAX_RECORDS for records on disk",
        "--DictDB.size_limit: this limits only records in memory; use TRIO_HUB_DB_MAX_BYTES for records on disk",
    ]
    assert run("--DictDB.record_limit=1024", *arguments, **variables).remarks == []


@pytest.mark.parametrize("hwm", [(), ("--hwm=0",), ("--hwm=1",), ("--hwm=5",)])
def test_the_pure_scheme_has_no_limit_whatever_is_asked_for(run: Run, hwm: tuple[str, ...]) -> None:
    translation = run(*hwm, "--scheme=pure")
    assert changed(translation) == {"scheme": "pure", "hwm": 0}
    assert translation.remarks == (["--hwm: the scheme pure has no limit"] if hwm == ("--hwm=5",) else [])


# Profiles and the environment


def test_profiles_are_found_as_ipython_finds_them(run: Run, tmp_path: Path) -> None:
    def where(*arguments: str, **variables: str) -> Path | None:
        return run(*arguments, **variables).config().profile_dir

    base = tmp_path / "ipython"
    assert where() == base / "profile_default"
    assert where("--profile=lab") == base / "profile_lab"
    assert where("--BaseIPythonApplication.profile=lab") == base / "profile_lab"
    assert where("--profile-dir", str(tmp_path / "here")) == tmp_path / "here"
    assert where("--profile-dir=~/here") == Path.home() / "here"
    assert where("--ipython-dir=/other", "--profile=lab") == Path("/other/profile_lab")
    assert where("--ipython-dir=/other") == Path("/other/profile_default")
    assert where(IPP_PROFILE_DIR="/by/launcher") == Path("/by/launcher")
    assert where("--profile=lab", IPP_PROFILE_DIR="/by/launcher") == base / "profile_lab"
    with pytest.raises(ConfigError, match="--profile is 'a/b'"):
        where("--profile=a/b")


def test_places_count_in_their_order(run: Run, profile: Path) -> None:
    (profile / "ipcontroller_config.py").write_text("c.IPController.cluster_id = 'file'")
    assert run(IPP_CLUSTER_ID="ipp").config().cluster_id == "file"
    assert run(IPP_CLUSTER_ID="ipp", TRIO_HUB_CLUSTER_ID="ours").config().cluster_id == "ours"
    assert run("--cluster-id=line", TRIO_HUB_CLUSTER_ID="ours").config().cluster_id == "line"
    (profile / "ipcontroller_config.py").unlink()
    assert run(IPP_CLUSTER_ID="ipp").config().cluster_id == "ipp"


def test_stock_variables_are_heeded(run: Run) -> None:
    config = run(IPP_SESSION_KEY="k", IPP_ENABLE_CURVE="1", IPP_CURVE_SECRETKEY=SECRET_KEY).config()
    assert (config.key, config.curve, config.curve_secretkey) == ("k", True, SECRET_KEY)
    assert not run("--IPController.enable_curve=False", IPP_ENABLE_CURVE="1").config().curve


@pytest.mark.parametrize("arguments", [["--ip=*"], ["--IPController.engine_ip=10.0.0.1"], ["--reuse", "--ip=eth0"]])
def test_nothing_is_encrypted_unless_asked_for_as_in_ipcontroller(run: Run, arguments: list[str]) -> None:
    assert not run(*arguments).config().encrypted
    for asked in (
        run(*arguments, "--IPController.enable_curve=True"),
        run(*arguments, IPP_ENABLE_CURVE="1"),
        run(*arguments, TRIO_HUB_CURVE="true"),
    ):
        assert asked.config().encrypted


def test_our_variables_go_together_with_the_files(run: Run, profile: Path) -> None:
    (profile / "ipcontroller_config.py").write_text("c.IPController.enable_curve = True")
    assert run(TRIO_HUB_CURVE_ALLOWED_KEYS="/keys").config().curve_allowed_keys == Path("/keys")


# Config files


def test_a_file_sets_traits_and_names_those_it_misspells(run: Run, profile: Path) -> None:
    file = profile / "ipcontroller_config.py"
    file.write_text(
        "c = get_config()\n"
        "c.HeartMonitor.period = 1500\n"
        "c.HeartMonitor.max_heartmonitor_mises = 4\n"
        "c.IPController.client_ports.extend([11, 12])\n"
        "c.IPController.ports = '20-22'\n"
        "c.Session.key = b'sesame'\n"
        "c.IPController.location  # only looked at\n"
        "c.Cluster.n = 4\n"
    )
    translation = run()
    assert changed(translation) == {"ping": 1.5, "client_ports": (11, 12), "ports": (20, 21, 22), "key": "sesame"}
    assert translation.files == [file]
    assert translation.remarks == [
        f"HeartMonitor.max_heartmonitor_mises in {file}: ipcontroller has no such trait; "
        "did you mean HeartMonitor.max_heartmonitor_misses?",
        f"Cluster.n in {file}: ipcontroller has no such class",
    ]
    assert translation.settings["ping"].label == f"HeartMonitor.period in {file}"


def test_the_command_line_counts_more_than_files(run: Run, profile: Path) -> None:
    (profile / "ipcontroller_config.py").write_text("c.TaskScheduler.hwm = 3\nc.Application.log_level = 'ERROR'")
    assert changed(run("--hwm=5", "--debug")) == {"hwm": 5, "log_level": "debug"}


def test_the_class_itself_counts_more_than_those_it_inherits_from(run: Run, profile: Path) -> None:
    (profile / "ipcontroller_config.py").write_text(
        "c.IPController.log_level = 10\nc.Application.log_level = 40\nc.BaseParallelApplication.log_level = 50"
    )
    assert changed(run()) == {"log_level": "debug"}


def test_files_include_others(run: Run, profile: Path) -> None:
    other = profile.parent / "profile_lab"
    other.mkdir()
    (other / "ipcontroller_config.py").write_text("c.TaskScheduler.hwm = 3\nc.HeartMonitor.period = 9000")
    (profile / "more.py").write_text("c.IPController.cluster_id = 'more'")
    (profile / "ipcontroller_config.py").write_text(
        "load_subconfig('ipcontroller_config.py', profile='lab')\n"
        "load_subconfig('ipcontroller_config.py', profile='nobody')\n"
        "load_subconfig('more.py')\n"
        "load_subconfig('missing.py')\n"
        "c.HeartMonitor.period = 1000\n"
    )
    assert changed(run()) == {"hwm": 3, "ping": 1.0, "cluster_id": "more"}


def test_ipython_s_own_file_counts_less_and_may_speak_of_others(run: Run, profile: Path) -> None:
    (profile / "ipython_config.py").write_text(
        "c.InteractiveShell.colors = 'x'\nc.TaskScheduler.hwm = 3\nc.Session.key = 'k'"
    )
    (profile / "ipcontroller_config.py").write_text("c.TaskScheduler.hwm = 4")
    translation = run()
    assert changed(translation) == {"hwm": 4, "key": "k"}
    assert translation.remarks == []


def test_files_can_be_json(run: Run, profile: Path) -> None:
    (profile / "ipcontroller_config.json").write_text('{"version": 1, "TaskScheduler": {"hwm": 4}}')
    assert changed(run()) == {"hwm": 4}


@pytest.mark.parametrize("named", ["{profile}/lab.py", "lab.py", "lab"])
def test_one_more_file_counts_most(run: Run, profile: Path, named: str) -> None:
    (profile / "lab.py").write_text("c.TaskScheduler.hwm = 5")
    (profile / "ipcontroller_config.py").write_text("c.TaskScheduler.hwm = 4")
    assert changed(run(f"--config={named.format(profile=profile)}")) == {"hwm": 5}


def test_a_file_can_name_one_more(run: Run, profile: Path) -> None:
    (profile / "lab.py").write_text("c.TaskScheduler.hwm = 5")
    (profile / "ipcontroller_config.py").write_text("c.IPController.extra_config_file = 'lab.py'")
    assert changed(run()) == {"hwm": 5}


def test_a_file_cannot_choose_the_profile_it_is_in(run: Run, profile: Path) -> None:
    file = profile / "ipcontroller_config.py"
    file.write_text("c.ProfileDir.location = '/elsewhere'\nc.IPController.profile = 'lab'")
    translation = run()
    assert translation.config().profile_dir == profile
    assert translation.remarks == [
        f"{name} in {file}: config files are read when the profile is known, so they cannot choose it"
        for name in ("ProfileDir.location", "IPController.profile")
    ]


def test_a_database_can_be_the_class_itself(run: Run, profile: Path) -> None:
    (profile / "ipcontroller_config.py").write_text(
        "class NoDB: pass\nNoDB.__module__ = 'ipyparallel.controller.dictdb'\nc.IPController.db_class = NoDB"
    )
    assert changed(run()) == {"db": "none"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c.TaskScheduler.hwm = 'many'", "TaskScheduler.hwm in {file} is 'many': expected a whole number"),
        ("c.IPController.ports = [1, 'x']", r"IPController.ports in {file} is .1, 'x'.: expected ports"),
        ("c.IPController.reuse_files = 1", "IPController.reuse_files in {file} is 1: expected true or false"),
        ("c.IPController.mux = 5", "IPController.mux in {file} is 5: expected two ports"),
        ("c.Session.key = 5", "Session.key in {file} is not usable: expected ASCII text"),
        ("\n1 / 0", "{file}, line 2, raised ZeroDivisionError"),
        ("\n\nc.X = (", "{file}, line 3, raised SyntaxError"),
        ("raise RuntimeError('no')", "{file}, line 1, raised RuntimeError: no"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(run: Run, profile: Path, text: str, message: str) -> None:
    file = profile / "ipcontroller_config.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message.format(file=file)):
        run()


def test_files_need_traitlets(run: Run, profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "traitlets.config.loader", None)
    assert changed(run("--hwm=3", "--TaskScheduler.scheme_name=lru")) == {"hwm": 3, "scheme": "lru"}
    (profile / "ipcontroller_config.py").write_text("")
    with pytest.raises(ConfigError, match=r"ipcontroller_config.py cannot be read.*pip install traitlets"):
        run()


def test_files_do_not_need_ipython(profile: Path, environ: Mapping[str, str]) -> None:
    (profile / "ipcontroller_config.py").write_text("c = get_config()\nc.TaskScheduler.hwm = 4")
    program = (
        "import os, sys\n"
        "from trio_hub.cli.translate import translate\n"
        "assert translate([], os.environ).config().hwm == 4\n"
        "print({'IPython', 'ipyparallel', 'jupyter_client', 'tornado'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=dict(environ), capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
