"""The process that starts a private PostgreSQL, and stops it when its last client has left.

Three locks in the directory say who is there. They are flocks: the kernel drops each when its holders end,
however they end, so no process id has to be believed.

    clients.lock   shared by every client; a process that gets it exclusively knows that none is left
    keeper.lock    held by the keeper, which inherits it, already taken, from the client that starts it
    server.lock    inherited by all that works on the data: initdb, the postmaster, every backend

It is run as a file (`python -I -S keeper.py ...`) and imports the standard library alone, so that it starts
fast and what the package around it needs cannot break it.
"""

import contextlib
import fcntl
import hashlib
import os
import pwd
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

PORT = 5432  # no TCP port: it only names the socket file
POLL = 0.25
LONGEST_SOCKET = 103  # bytes: macOS; Linux has room for 107
ROLE = "openproto"

# What clients connect as. Policies on rows do not bind a superuser, so this is none: it owns the database, and what
# earlier versions of this file let the superuser make in it. pgvector is for superusers to install. The file that says
# that all of this is done is written by the server itself, for the program exits with 0 after an error as well.
GIVE_TO_ROLE = f"""
DO $give$
DECLARE name text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN CREATE ROLE {ROLE} LOGIN; END IF;
    ALTER DATABASE postgres OWNER TO {ROLE};
    CREATE EXTENSION IF NOT EXISTS vector;
    FOR name IN SELECT format('SCHEMA %I', nspname) FROM pg_namespace
            WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
        UNION ALL SELECT format('TABLE %s', oid::regclass) FROM pg_class
            WHERE relkind IN ('r', 'p', 'v', 'm', 'S') AND relowner = 10 AND oid >= 16384
            AND NOT EXISTS (SELECT FROM pg_depend
                WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype IN ('e', 'i', 'a'))
        UNION ALL SELECT format('ROUTINE %s', oid::regprocedure) FROM pg_proc WHERE proowner = 10 AND oid >= 16384
            AND NOT EXISTS (SELECT FROM pg_depend
                WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
        UNION ALL SELECT format('DOMAIN %s', oid::regtype) FROM pg_type
            WHERE typtype = 'd' AND typowner = 10 AND oid >= 16384
    LOOP
        EXECUTE format('ALTER %s OWNER TO {ROLE}', name);
    END LOOP;
    EXECUTE format('COPY (SELECT) TO %L', current_setting('data_directory') || '/{ROLE}.role');
END $give$;

"""


def lock(path: Path, kind: int) -> int | None:
    """Take a flock without waiting: its file descriptor, or None while somebody else has it."""
    taken = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(taken, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(taken)
        return None
    except BaseException:
        os.close(taken)
        raise
    return taken


def server_user(data: Path) -> tuple[int, int]:
    """Who runs the server: we do, but for root, whom postgres refuses, the data's owner or a system user."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    with contextlib.suppress(FileNotFoundError):
        owner = data.stat()
        return owner.st_uid, owner.st_gid
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    return user.pw_uid, user.pw_gid


class Place:
    """Where one private server lives, and whose it is."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clients, self.keeper, self.server = (directory / f"{who}.lock" for who in ("clients", "keeper", "server"))
        self.data = directory / "data"
        self.log = directory / "server.log"
        self.has_role = self.data / f"{ROLE}.role"
        self.uid, self.gid = server_user(self.data)
        self.sockets = directory / "run"
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET:
            name = hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]
            # Not gettempdir(): two clients with different TMPDIRs must look in the same place. `own` and
            # `accepting` check whose folder it is.
            self.sockets = Path("/tmp", f"openproto-{name}")  # noqa: S108

    @property
    def socket(self) -> Path:
        """The file the server listens on."""
        return self.sockets / f".s.PGSQL.{PORT}"

    @property
    def role(self) -> str:
        """Who clients connect as: the superuser where a server of an earlier version is still running."""
        return ROLE if self.has_role.exists() else "postgres"

    def accepting(self) -> bool:
        """Whether the server takes sessions now; while it starts or stops it answers with the code 57P03."""
        session = b"user\0postgres\0database\0postgres\0\0"
        hello = struct.pack("!ii", len(session) + 8, 3 << 16) + session
        goodbye = b"X\0\0\0\4"
        answer = b""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as peer:
            if self.sockets.lstat().st_uid != self.uid:
                return False
            peer.settimeout(5)
            peer.connect(str(self.socket))
            peer.sendall(hello + goodbye)
            while more := peer.recv(4096):
                answer += more
        return bool(answer) and b"57P03" not in answer

    def own(self, folder: Path) -> None:
        """Make a folder that only the server's user may enter; exit if somebody else has put it there."""
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), self.uid}:
            sys.exit(f"{folder} belongs to another user: remove it, or choose a directory with a short path.")
        os.chown(folder, self.uid, self.gid)
        folder.chmod(0o700)

    def disown(self) -> None:
        """Remove the empty folder of the socket, which may lie in /tmp."""
        with contextlib.suppress(OSError):
            if self.sockets.lstat().st_uid == self.uid:
                self.sockets.rmdir()


class Keeper:
    """Runs the server of one place."""

    def __init__(self, place: Place, binaries: Path, settings: list[str]) -> None:
        self.place = place
        self.binaries = binaries
        self.settings = settings
        self.child: subprocess.Popen[bytes] | None = None

    def run(
        self, program: str, *options: str | Path, held: int | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Start a program as the server's user; it and its children hold the lock `held` while they live."""
        other = self.place.uid != os.geteuid()
        # Not the client's environment: PG* would change the server, and the rest may hold secrets.
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        return subprocess.Popen(  # noqa: S603 - programs of the wheel
            [self.binaries / program, *options],
            stdin=stdin,
            env=kept | {"LC_ALL": "C", "TZ": "UTC"},
            pass_fds=() if held is None else (held,),
            user=self.place.uid if other else None,
            group=self.place.gid if other else None,
            extra_groups=[] if other else None,
        )

    def create(self, held: int) -> None:
        """Make the data folder: it appears under its name only when it is whole."""
        fresh = self.place.directory / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        self.place.own(fresh)
        # Any local user may log in, but none can reach the socket. The built-in locale is the same everywhere
        # and, unlike C, knows the case of letters beyond ASCII.
        how = "--auth=trust --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"
        options = ["--username=postgres", "--no-instructions", *how.split()]
        if self.run("initdb", *options, "-D", fresh, held=held).wait() != 0:
            sys.exit("initdb could not make the data folder.")
        fresh.rename(self.place.data)

    def make_role(self, held: int) -> None:
        """Make the role that clients connect as: while nothing else runs on the data, by the server on its own."""
        alone = self.run(
            "postgres", "--single", "-j", "-D", self.place.data, "postgres", held=held, stdin=subprocess.PIPE
        )
        alone.communicate(GIVE_TO_ROLE.encode())
        if not self.place.has_role.exists():
            sys.exit("The role that clients connect as could not be made.")

    def launch(self, held: int) -> subprocess.Popen[bytes]:
        """Start the server; `held` is its lock, which proves that no other works on the data."""
        place = self.place
        place.own(place.sockets)
        if not place.data.exists():
            self.create(held)
        # Left by a server that was killed. The process id inside may be somebody else's by now, and then
        # PostgreSQL would refuse to start.
        for stale in (place.data / "postmaster.pid", place.socket, Path(f"{place.socket}.lock")):
            stale.unlink(missing_ok=True)
        if not place.has_role.exists():
            self.make_role(held)
        # Last, so that no setting can open the server to others.
        ours = ["listen_addresses=", f"port={PORT}", f"unix_socket_directories={place.sockets}"]
        options = [option for setting in (*self.settings, *ours) for option in ("-c", setting)]
        return self.run("postgres", "-D", place.data, *options, held=held)

    def watch(self) -> None:
        """Keep the server running until no client is left; new ones then wait until this process has ended."""
        while lock(self.place.clients, fcntl.LOCK_EX) is None:
            if self.child:
                self.child.poll()  # reaps it
            # Free: nothing of a server is left. Taken: ours, or that of a keeper which was killed.
            if (held := lock(self.place.server, fcntl.LOCK_EX)) is not None:
                try:
                    if self.child and self.notes()[-1:] != ["ready"]:  # not killed, or before it was of use
                        sys.exit("PostgreSQL has ended.")
                    self.child = self.launch(held)
                finally:
                    os.close(held)
            time.sleep(POLL)

    def stop(self) -> None:
        """End the server: cleanly if it can within 30 s, and otherwise by force."""
        for name, patience in (("INT", 30), ("QUIT", 10), ("KILL", 5)):
            sent = False
            end = time.monotonic() + patience
            while time.monotonic() < end:
                if (held := lock(self.place.server, fcntl.LOCK_EX)) is not None:
                    os.close(held)
                    if self.child:
                        self.child.wait()  # reaps it; without the lock it is all but gone
                    return
                sent = sent or self.send(name)
                time.sleep(0.05)

    def send(self, name: str) -> bool:
        """Send the postmaster a signal, with the rights of its own user: its file may name any process."""
        pid = self.notes()[:1]  # none while it has only just started
        return bool(pid) and self.run("/bin/sh", "-c", 'kill -s "$0" "$1"', name, *pid).wait() == 0

    def notes(self) -> list[str]:
        """The words of the postmaster's own file, from its process id to its state; it outlives a kill."""
        try:
            return (self.place.data / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return []


def main(directory: str, binaries: str, *settings: str) -> None:
    """Keep a server until its last client has left; keeper.lock is among the open files, and ends with us."""
    if os.fork():  # an orphan is reaped by init, and the client that started it need not care
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("The keeper was terminated."))
    keeper = Keeper(Place(Path(directory)), Path(binaries), list(settings))
    try:
        keeper.watch()
    finally:
        keeper.stop()
        keeper.place.disown()


if __name__ == "__main__":
    main(*sys.argv[1:])
