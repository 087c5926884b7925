"""Rows as a person reads them. Everything from a row goes through `plain`; nothing is markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from rowtine.awaitables import PROMISE
from rowtine.cli.text import duration, line_of, place, plain, shortened
from rowtine.core.phases import Kind, Phase, Resolution
from rowtine.core.status import Status
from rowtine.core.tasks import TIMEOUT
from rowtine.store.reports import (
    PARKED,
    CallFacts,
    CoroutineFacts,
    Flight,
    JoinFacts,
    Members,
    Story,
)

__all__ = ["console", "flights_table", "story_json", "story_tree", "summary", "traceback_of"]

_WIDE = 10_000
"""Columns where there is no terminal: a line in a file or a pipe is never cut."""


def console(file: IO[str] | None = None, *, stderr: bool = False) -> Console:
    """A console that prints text as it is."""
    made = Console(file=file, stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = _WIDE
    return made


# -------------------------------------------------------------------------------------------- ps


_SHORT_ID = len("01a202f4-d010-7001")
"""Milliseconds and a counter: what tells ids apart that one process made. `show` takes it."""


def flights_table(flights: Sequence[Flight], *, short: bool) -> Table:
    """`rowtine ps`: one line for each coroutine that is suspended and call that is under way.

    `short` is for a terminal's width; what goes to a pipe is whole.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    # Where the terminal is narrow, names give way, which one knows, and not ids and ages.
    table.add_column("ID", no_wrap=True, min_width=_SHORT_ID)
    table.add_column("FUNCTION", no_wrap=True)
    table.add_column("STATE", no_wrap=True, min_width=len(Phase.SUSPENDED))
    table.add_column("FOR", no_wrap=True, min_width=len("120 min"), justify="right")
    table.add_column("WAITS FOR", no_wrap=True)
    table.add_column("AT", no_wrap=True)
    for flight in flights:
        table.add_row(
            flight.execution_id[:_SHORT_ID] if short else flight.execution_id,
            Text(_function(flight)),
            Text(flight.state, style=_STYLES[flight.state]),
            duration(flight.seconds),
            Text(_waits_for(flight)),
            Text(place(flight.file, flight.line, short=short)),
        )
    return table


def _function(flight: Flight) -> str:
    if flight.coroutine_id == 0:
        return line_of(flight.execution)
    return line_of(f"{flight.execution}/{flight.coroutine} {flight.coroutine_id}")


def _waits_for(flight: Flight) -> str:
    left = () if flight.seconds_left is None else (f"{duration(flight.seconds_left)} left",)
    words = ", ".join((*filter(None, [_awaited(flight)]), *left))
    if not flight.cancelling or flight.coroutine_id != 0:
        return words
    return f"{words}; {_told_to_stop(flight.cancel_reason)}"


def _awaited(flight: Flight) -> str:
    if flight.state == Phase.RUNNING:
        return _process(flight.pid, flight.host)
    if flight.kind is None:
        return "" if flight.state == Phase.QUEUED else "its next round"
    if flight.pending is not None and (flight.kind != Kind.TASK or flight.pending > 1):
        return f"{flight.kind}: {flight.pending:,} pending{_parked(flight.parked)}"
    running = f" ({_process(flight.pid, flight.host)})" if flight.pid is not None else ""
    return _named(flight.kind, flight.waits_for or "") + running


def _named(kind: str, name: str) -> str:
    """What is waited for, in words."""
    match kind:
        case Kind.TASK if name == PROMISE:
            return name
        case Kind.TASK | Kind.SIGNAL:
            return f"{kind} {line_of(name)}"
        case _:
            return line_of(name)


def _parked(number: int | None) -> str:
    return f", {number:,} parked" if number else ""


def _told_to_stop(reason: str | None) -> str:
    return f"told to stop: {shortened(reason, 120)}" if reason else "told to stop"


def _process(pid: int | None, host: str | None) -> str:
    """Its worker's row may be gone: a worker that nobody has heard of for long."""
    return "a lost worker" if pid is None else line_of(f"pid {pid} on {host}")


_ORDER = (Phase.RUNNING, Phase.SUSPENDED, Phase.QUEUED)


def summary(counts: Mapping[str, int], shown: int) -> str:
    """The last line of `rowtine ps`."""
    if not counts:
        return "nothing is in flight"
    words = ", ".join(f"{counts[state]:,} {state}" for state in _ORDER if state in counts)
    left = sum(counts.values()) - shown
    return f"{words}; {left:,} of them not shown (--limit)" if left > 0 else words


# ------------------------------------------------------------------------------------------ show

_STYLES: Mapping[str, str] = {
    Phase.QUEUED: "yellow",
    Phase.RUNNING: "cyan",
    Phase.SUSPENDED: "yellow",
    Phase.DONE: "green",
}


def story_tree(told: Mapping[str, Story], *, values: bool = False) -> Tree:
    """`rowtine show`: an execution, what its coroutines waited for and wait for now, and the
    executions that answer those waits."""
    first = next(iter(told.values()))
    return _Drawing(told, values).drawn(first)


class _Drawing:
    """The tree in the making."""

    def __init__(self, told: Mapping[str, Story], values: bool) -> None:
        self._told = told
        self._values = values

    def drawn(self, story: Story) -> Tree:
        tree = Tree(self._call(story.call, f"  {story.call.id}"), guide_style="dim")
        self._execution(tree, story)
        return tree

    def _execution(self, tree: Tree, story: Story) -> None:
        self._journal(tree, story, 0)
        for name, number in story.signals.items():
            times = f" ({number:,})" if number > 1 else ""
            tree.add(Text(f"signal {line_of(name)}{times}  sent, and not asked for", style="dim"))

    def _journal(self, tree: Tree, story: Story, owner: int) -> None:
        """The waits of one coroutine, in their order; the last one may be open."""
        waits: list[tuple[int, CallFacts | JoinFacts]] = [
            *((call.seq or 0, call) for call in story.calls.get((owner, None), ())),
            *((join.seq, join) for join in story.joins.get(owner, ())),
        ]
        waits.sort(key=lambda wait: wait[0])
        if waits and waits[0][0] > 0:
            tree.add(Text(f"{waits[0][0]:,} earlier waits", style="dim"))
        for _, wait in waits:
            if isinstance(wait, CallFacts):
                self._called(tree, wait)
            elif wait.kind == Kind.SPAWN and wait.children == 1:
                self._members(tree, story, (owner, wait.seq))
            else:
                parked = story.counts.get((owner, wait.seq), {}).get(PARKED)
                self._members(tree.add(_join(wait, parked)), story, (owner, wait.seq))

    def _members(self, tree: Tree, story: Story, group: Members) -> None:
        """The members of a join, and a line for those that are not shown."""
        calls, coroutines = story.calls.get(group, ()), story.coroutines.get(group, ())
        members: list[tuple[int, CallFacts | CoroutineFacts]] = [
            *((call.coroutine_id or 0, call) for call in calls),
            *((coroutine.id, coroutine) for coroutine in coroutines),
        ]
        for id, member in sorted(members, key=lambda member: member[0]):
            if isinstance(member, CallFacts):
                self._called(tree, member)
            elif member.kind == Kind.COROUTINE:
                self._journal(tree.add(_coroutine(member)), story, id)
            else:
                for join in story.joins.get(id, ()):
                    parked = story.counts.get((id, join.seq), {}).get(PARKED)
                    line = _join(join, parked, shielded=member.shielded)
                    self._members(tree.add(line), story, (id, join.seq))
        if rest := _rest(story.counts.get(group, {}), (member for _, member in members)):
            tree.add(Text(rest, style="dim"))

    def _called(self, tree: Tree, call: CallFacts) -> None:
        node = tree.add(self._call(call))
        below = self._told.get(call.id)
        if below is not None:
            self._execution(node, below)
        elif call.phase == Phase.SUSPENDED:
            node.add(Text(f"further down: rowtine show {call.id}", style="dim"))

    def _call(self, call: CallFacts, id: str = "") -> Text:
        text = Text(_called(call), style="bold" if call.phase != Phase.DONE else "")
        text.append("  ")
        text.append_text(_standing(call))
        text.append(_where(call.file, call.line) + id, style="dim")
        if self._values:
            text.append(f"\n{shortened(call.input or '', 200)}", style="dim")
            if call.output is not None and call.error_type is None:
                text.append(f"\n-> {shortened(call.output, 200)}", style="dim")
            if call.details is not None:
                text.append(f"\nsaid {shortened(call.details, 200)}", style="dim")
        return text


def _called(call: CallFacts) -> str:
    """A call in words. A limit of time is a timer that nobody waits for."""
    if _is_time_limit(call):
        return "time limit"
    name = _named(call.kind, call.function)
    return f"{name} (key {line_of(call.key)})" if call.key is not None else name


def _standing(call: CallFacts) -> Text:
    """Where a call stands, and why."""
    text = _how_it_stands(call)
    if call.phase == Phase.QUEUED and call.due_in is not None and call.due_in > 0:
        clocked = call.kind in (Kind.FUNCTION, Kind.TIMER)
        span = duration(call.due_in)
        text.append(f", due in {span}" if clocked else f", {span} left")
    elif call.phase == Phase.RUNNING:
        text.append(f" in {_process(call.pid, call.host)}")
    elif call.phase == Phase.SUSPENDED and call.round is not None:
        text.append(f", round {call.round}")
    if call.phase != Phase.DONE:
        text.append(f", for {duration(call.seconds)}")
        if call.deadline_in is not None:
            text.append(f", deadline in {duration(call.deadline_in)}")
        if call.cancelling:
            text.append(f", {_told_to_stop(call.cancel_reason)}", style="red")
    if call.attempt > 1:
        text.append(f", attempt {call.attempt}")
    if call.claim > call.attempt:
        text.append(f", claimed {call.claim} times")
    if call.error_type is not None and call.status != Status.CANCELLED:
        text.append(f"  {shortened(_error(call), 120)}", style="red")
    return text


def _how_it_stands(call: CallFacts) -> Text:
    if call.resolution == Resolution.TIMEOUT:
        return Text("given up: time limit", style="red")
    if call.phase != Phase.DONE:
        return Text(_phase(call), style=_STYLES[call.phase])
    if _is_time_limit(call):
        return Text("over", "red") if call.status == Status.OK else Text("kept", "green")
    if call.status != Status.OK:
        return Text((call.status or "failed").lower().replace("_", " "), style="red")
    return Text(call.phase, style=_STYLES[call.phase])


def _is_time_limit(call: CallFacts) -> bool:
    return call.kind == Kind.TIMER and call.function == TIMEOUT


def _phase(call: CallFacts) -> str:
    """A promise, and a wait for a signal, is no work that stands in a queue."""
    if call.phase != Phase.QUEUED:
        return call.phase
    if call.kind in (Kind.PROMISE, Kind.SIGNAL):
        return "open"
    return PARKED if call.parked else call.phase


def _error(of: CallFacts | CoroutineFacts) -> str:
    name = (of.error_type or "").rpartition(".")[2]
    return f"{name}: {of.error_message}" if of.error_message else name


def _join(join: JoinFacts, parked: int | None, *, shielded: bool = False) -> Text:
    text = Text(_join_name(join) + (", shielded" if shielded else ""))
    if join.kind == Kind.SPAWN:
        text.append(_parked(parked))
    elif join.resolution is None:
        text.stylize("bold")
        pending = f"{join.pending:,} pending" if join.children > 1 else "pending"
        text.append(f"  {pending}{_parked(parked)}", style="yellow")
        if join.failed:
            text.append(f", {join.failed:,} failed", style="red")
        text.append(f", for {duration(join.seconds)}")
    elif join.resolution == Resolution.RESULT:
        text.append("  done", style="green")
        if join.failed:
            text.append(f", {join.failed:,} failed", style="red")
    elif join.resolution == Resolution.TIMEOUT:
        text.append("  given up: time limit", style="red")
    else:
        text.append(f"  {join.resolution.replace('_', ' ')}", style="red")
    text.append(_where(join.file, join.line), style="dim")
    return text


def _join_name(join: JoinFacts) -> str:
    match join.kind:
        case Kind.SPAWN:
            name = f"{join.children:,} begun"
        case Kind.TASK if join.children == 1:
            return f"wait for {_named(Kind.TASK, join.function)}"
        case Kind.TASK:
            name = f"wait for the next of {join.children:,} tasks"
        case _:
            name = f"{join.kind} of {join.children:,}"
    limit = join.max_concurrency
    return name if limit is None else f"{name}, {limit:,} at once"


def _coroutine(coroutine: CoroutineFacts) -> Text:
    text = Text(line_of(coroutine.function), style="bold" if coroutine.status is None else "")
    text.append("  ")
    if coroutine.status is None:
        text.append(coroutine.phase, style=_STYLES[coroutine.phase])
        if coroutine.shielded:
            text.append(", shielded")
        if coroutine.cancelled:
            text.append(", told to stop", style="red")
    elif coroutine.status == Status.OK:
        text.append("done", style="green")
    else:
        text.append(coroutine.status.lower().replace("_", " "), style="red")
        if coroutine.error_type is not None and coroutine.status != Status.CANCELLED:
            text.append(f"  {shortened(_error(coroutine), 120)}", style="red")
    return text


def _where(file: str | None, line: int | None) -> str:
    return f"  {place(file, line)}" if file else ""


def _rest(counts: Mapping[str, int], shown: Iterable[CallFacts | CoroutineFacts]) -> str:
    """The members that there was no room for, by how they stand."""
    left = dict(counts)
    for member in shown:
        how = _how(member)
        left[how] = left.get(how, 0) - 1
    words = [
        f"{number:,} {how.lower().replace('_', ' ')}"
        for how, number in sorted(left.items())
        if number > 0
    ]
    return f"and {', '.join(words)}" if words else ""


def _how(member: CallFacts | CoroutineFacts) -> str:
    if not isinstance(member, CallFacts):
        return member.phase
    if member.phase == Phase.DONE and member.status != Status.OK:
        return str(member.status)
    return PARKED if member.parked else member.phase


def traceback_of(call: CallFacts) -> str:
    """The traceback of a call that failed, as it was where it ran."""
    return plain((call.error_traceback or "").strip())


def story_json(told: Mapping[str, Story]) -> dict[str, Any]:
    """`rowtine show --json`: the facts as they are, each list flat."""
    return {
        "executions": [
            {
                "call": asdict(story.call),
                "coroutines": [asdict(c) for group in story.coroutines.values() for c in group],
                "joins": [asdict(join) for group in story.joins.values() for join in group],
                "calls": [asdict(call) for group in story.calls.values() for call in group],
                "counts": [
                    {"coroutine_id": owner, "seq": seq, "members": counts}
                    for (owner, seq), counts in story.counts.items()
                ],
                "signals": story.signals,
            }
            for story in told.values()
        ]
    }
