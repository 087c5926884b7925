"""What a workload asks of an engine: four verbs over one kind of value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from benchmarks import bodies
from benchmarks.databases import Reader, settle
from benchmarks.waiting import until


class Shape(StrEnum):
    JOB = "job"
    """One function in the background: no workflow around it, no step inside."""
    STEPS = "steps"
    """A workflow of so many steps, one after the other."""
    FAN_OUT = "fan_out"
    """A workflow that starts so many at once and waits for all of them."""


@dataclass(frozen=True, slots=True)
class Program:
    """What one execution does."""

    shape: Shape
    bodies: int = 1
    """How many bodies run in it."""


JOB = Program(Shape.JOB)


Start = Callable[[Program, int], None]
"""Starts an execution of the program, as the workflow of this number."""


class Adapter(Protocol):
    """One engine, on a database that holds nothing else.

    Its bodies are those of `benchmarks.bodies`; they are told the number of the workflow and of the
    step.
    """

    url: str

    self_contained: bool
    """Whether it stores nothing in the database, and works in processes of its own."""

    def __init__(self, url: str) -> None: ...

    def prepare(self) -> None:
        """Make the tables, and leave no connection behind."""

    def starting(self) -> AbstractContextManager[Start]:
        """A way to start executions one by one, over connections that are open already."""

    def accept(self, program: Program, count: int) -> None:
        """Have so many executions stored, to be run by whoever works."""

    def working(self) -> AbstractContextManager[None]:
        """Run in this process what is or becomes due."""

    def finished(self) -> int:
        """How many executions have ended right, since the tables were made."""

    def run(self, program: Program, count: int) -> float:
        """Seconds that so many executions take in this process."""

    def close(self) -> None: ...


class Engine(ABC):
    """An engine whose executions are stored first and worked off after.

    `run` then times the working-off alone: from the start of the worker to the moment when the last
    outcome is in the database.
    """

    self_contained = False

    def __init__(self, url: str) -> None:
        self.url = url
        self.reader = Reader(url)

    @abstractmethod
    def prepare(self) -> None: ...

    @abstractmethod
    def starting(self) -> AbstractContextManager[Start]: ...

    def accept(self, program: Program, count: int) -> None:
        """One by one; an engine that can start many at once does so instead."""
        with self.starting() as start:
            for workflow in range(count):
                start(program, workflow)

    @abstractmethod
    def working(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def finished(self) -> int: ...

    def run(self, program: Program, count: int) -> float:
        self.accept(program, count)
        settle(self.url)
        finished = self.finished() + count
        over = bodies.after(count * program.bodies)
        began = bodies.now()
        with self.working():
            # The database is asked only when the last body has run: the question costs something.
            if not over.wait(240):
                raise TimeoutError("bodies that were to run have not run within 240 s")
            until(lambda: self.finished() >= finished)
            return bodies.now() - began

    def close(self) -> None:
        self.reader.close()
