"""Threads with a connection each, in which what is asked of the file runs, and really stops when it is cancelled."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

from openproto.blocking.threads import Threads, closed_meanwhile
from openproto.errors import OpenProtoError
from openproto_adapters.sqlite.errors import typed_error
from openproto_adapters.sqlite.row_security import secure_rows

T = TypeVar("T")
Q = TypeVar("Q")

Answers: TypeAlias = "Callable[[Connection, Sequence[Q]], Sequence[T | OpenProtoError]]"
"""What answers several requests at once, each with a result or the error that is that one's alone."""

# How many steps of SQLite's virtual machine, well under a millisecond of them, pass between looks at a cancellation.
_STEPS_BETWEEN_LOOKS = 20_000


class Job:
    """Whether what a worker thread is busy with was given up."""

    cancelled = False

    def give_up(self) -> None:
        """Stop the statement that runs for it."""
        self.cancelled = True


class Call(Job):
    """One of the calls that go to the file together; it runs with the context variables of its caller."""

    def __init__(self, function: Callable[[Connection], Any]) -> None:
        self._context = copy_context()
        self._function = function

    @property
    def kind(self) -> object:
        """What is the same for calls that can be done in one step."""
        return self

    def run(self, connection: Connection, calls: Iterable[Call]) -> Sequence[Any]:
        """Return what each of these calls, which are of one kind, returns; or its error."""
        return [self._context.run(self._function, connection)]


class Part(Call):
    """A call of which those with the same function are done in one step, outside the contexts of their callers."""

    def __init__(self, function: Answers[Any, Any], request: Any) -> None:
        self._answers = function
        self._request = request

    @property
    def kind(self) -> object:
        """What is the same for calls that can be done in one step."""
        return self._answers

    def run(self, connection: Connection, calls: Iterable[Call]) -> Sequence[Any]:
        """Return what each of these calls, which are of one kind, returns; or its error."""
        return self._answers(connection, [call._request for call in calls if isinstance(call, Part)])


class _Look:
    """What SQLite asks between its steps: whether to stop.

    It does not refer to its connection: in such a circle a connection would wait for the garbage collector.
    """

    def __init__(self) -> None:
        self.job = Job()
        self.is_off = False

    def __call__(self) -> bool:
        return self.job.cancelled and not self.is_off


class Connection(sqlite3.Connection):
    """A connection that knows the job it works for, and stops a running statement when that is cancelled."""

    should_index = False
    """Whether the last transaction saw that many memories wait for the index of words."""
    _acting_user: tuple[str | None, ...] = ()
    stands_in_for: Path | None = None
    """The file that did not exist yet when this connection to an empty store was made in its place."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._look = _Look()
        self.set_progress_handler(self._look, _STEPS_BETWEEN_LOOKS)

    @property
    def job(self) -> Job:
        """What this connection works for."""
        return self._look.job

    def work_for(self, job: Job) -> None:
        """Serve `job` from now on, for no user yet."""
        self._look.job = job
        self._acting_user = ()

    def control(self, statement: str) -> None:
        """Begin, save, or end a transaction, which nothing interrupts: whether it was done would not be known."""
        self._look.is_off = True
        try:
            self.execute(statement)
        finally:
            self._look.is_off = False

    def secure(self) -> None:
        """Show and change only rows of the user that this connection acts for."""
        self.create_function("acting_user", 0, lambda: self._acting_user[0], deterministic=True)
        secure_rows(self)

    def insert(
        self, table: str, columns: Mapping[str, Sequence[Any]], made: str = "", by: str = "", of: Sequence[str] = ()
    ) -> None:
        """Insert rows, given as columns of the same length; the column `made` is the expression `by` of those of `of`.

        A column that is NULL in all of them is left out: `sqlite3` takes longer to bind None than to write the rest.
        """
        told = {name: values for name, values in columns.items() if values.count(None) < len(values)}
        names, places = [*told], ["?"] * len(told)
        if made:
            names.append(made)
            places.append(by)
        self.executemany(
            f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(places)})",
            zip(*told.values(), *map(columns.__getitem__, of), strict=True),
        )

    def act_for(self, user_id: str | None) -> None:
        """Let what follows meet the rows of this user, or with None, as operators do, of everybody."""
        self._acting_user = (user_id,)


class Lane:
    """`width` threads with a connection each, made when first needed; `then` is called after each job."""

    def __init__(
        self,
        name: str,
        width: int,
        connect: Callable[[Job], Connection],
        then: Callable[[], None] = lambda: None,
    ) -> None:
        self._threads = Threads(width, name)
        self._connect = connect
        self._then = then
        self._idle: SimpleQueue[Connection | None] = SimpleQueue()
        for _ in range(width):
            self._idle.put(None)
        self._width = width
        self._running: dict[Job, Sequence[Job]] = {}
        self._is_closing = False

    async def run(self, function: Callable[[Connection], T]) -> T:
        """Return `function(connection)`."""
        return await self.start(function)

    def start(self, function: Callable[[Connection], T], calls: Sequence[Job] = ()) -> asyncio.Future[T]:
        """Start `function(connection)`, which serves these calls, and return its future."""
        job = Job()
        return self._start(lambda: self._work(job, function), job, calls)

    async def prepare(self, function: Callable[[Job], None]) -> None:
        """Run what comes before there is a connection."""
        job = Job()
        await self._start(lambda: _typed(lambda: function(job)), job)

    async def close(self) -> None:
        """Interrupt what runs, refuse what comes, and close every connection."""
        self._is_closing = True
        for job, calls in self._running.items():
            for given_up in (job, *calls):
                given_up.give_up()
        try:
            for _ in range(self._width):
                await self._threads(self._close_one)
        finally:
            self._threads.close()

    def _start(self, work: Callable[[], T], job: Job, calls: Sequence[Job] = ()) -> asyncio.Future[T]:
        if self._is_closing:  # its connection may be closed by now, and no other is made
            raise closed_meanwhile()

        def ended() -> None:
            # Reached early only by a cancellation: the statement that runs for this job now stops.
            job.give_up()
            del self._running[job]
            self._then()

        future = self._threads.submit(work, ended)
        self._running[job] = calls
        return future

    def _work(self, job: Job, function: Callable[[Connection], T]) -> T:
        connection = self._idle.get()
        try:
            if connection is not None and connection.stands_in_for is not None and connection.stands_in_for.exists():
                connection.close()
                connection = None
            connection = connection or self._connect(job)
            connection.work_for(job)
            return function(connection)
        except sqlite3.Error as error:
            raise typed_error(error) from error
        finally:
            self._idle.put(connection)

    def _close_one(self) -> None:
        if (connection := self._idle.get()) is not None:
            connection.close()


def _typed(action: Callable[[], None]) -> None:
    try:
        action()
    except sqlite3.Error as error:
        raise typed_error(error) from error
