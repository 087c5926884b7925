"""Every case has a test, or a line in a decision that says why rowtine does otherwise.

Cases are numbered in two parts: what the ancestor does or should have done (`@pytest.mark.case`),
and what the tests of peers ask for (`@pytest.mark.peer_case`). Numbers have gaps, and the two parts
share numbers. A table of a decision that has a column *case* counts for the first part, one that
has a column *peer's case* for the second.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

CASES = {
    # entry and exit
    1: "main returns a value",
    3: "main raises",
    4: "positional arguments and arguments by name",
    5: "arguments that do not fit",
    6: "input that is no argument list",
    7: "an entry point that is no async function",
    8: "which exception means which status",
    9: "errors of TLS have their own status",
    11: "of registered error classes the nearest decides",
    13: "main returns what cannot be stored",
    14: "tracebacks name the user's lines",
    # calls
    18: "a call suspends the function",
    19: "the result resumes it",
    20: "the error of a call can be caught",
    22: "calls one after the other",
    23: "a durable helper is no call",
    24: "a result that is None",
    26: "an error known only by its name",
    27: "an error whose class cannot be made of its message",
    28: "call ids are unique for the life of a function",
    29: "one call object, awaited twice",
    30: "an argument that cannot be stored, caught at the await",
    31: "locals and arguments over a suspension",
    # delivery of results
    32: "a result twice in one batch",
    34: "a result again, while its owner waits for a gather",
    36: "a result for a call that was never made",
    38: "results out of order",
    39: "a wake-up without results",
    40: "the same round twice",
    41: "two owners in one batch",
    42: "more results than were asked for",
    # gather
    43: "a gather of calls",
    46: "members that finish at once",
    49: "a late sibling while a second gather waits",
    51: "a late sibling while a race waits",
    52: "orphans of a failed gather",
    54: "a gather in a gather",
    55: "a gather of bare calls",
    57: "one coroutine object twice",
    59: "a thousand members",
    60: "a traceback through a gather",
    # any
    61: "the first success wins",
    62: "failures, then a success",
    64: "all fail",
    65: "the only one fails",
    66: "any of nothing",
    67: "a loser's result while main waits for a call",
    # race
    69: "the first result wins",
    71: "a race of nothing",
    72: "a loser's result while main waits for a call",
    74: "two results in one batch",
    75: "a value and an error in one batch",
    80: "duplicates and strangers at a future",
    # tail calls
    81: "main raises a tail call",
    84: "a member of a gather raises a tail call",
    # poll errors
    87: "only the calls of the last yield fail",
    88: "a poll error that nobody catches",
    90: "a result after the poll error",
    91: "a poll error together with results",
    92: "a poll error when the last yield made no call",
    # poll parameters
    93: "minimum and maximum are held to what is outstanding",
    94: "the longest wait is handed on",
    96: "losers count as outstanding",
    # versions and state
    98: "a version of one's own",
    99: "a state of the wrong type",
    100: "a state that is damaged",
    104: "the code calls another function now",
    105: "the function moved by a line",
    109: "resumed in another process",
    110: "parent and child hold one object",
    # over an await
    112: "a local that cannot be stored",
    114: "a closure over a local",
    115: "a comprehension that reads a local",
    116: "an async helper without decorator",
    117: "a bare raise after an await",
    118: "finally runs once, at the end",
    120: "where an iteration stands",
    # native asyncio
    125: "a native await fails",
    126: "asyncio.wait_for runs out",
    127: "asyncio.timeout runs out",
    128: "a sibling in a native await when main ends",
    130: "asyncio.gather of durable calls",
    131: "a native await and the calls of siblings",
    # order and generators
    135: "nested gathers call in order of declaration",
    137: "an async generator as function",
    138: "a yield of something unknown",
    # the end of a function
    139: "suspended members are closed",
    140: "clean-up that awaits",
    141: "calls still outstanding",
    # values
    142: "scalars",
    144: "integers at 64 bits and beyond",
    145: "tuples, sets, dataclasses",
    146: "a list of integers stays one",
    147: "a large integer in a dict",
    149: "a dict with integer keys",
    150: "bytes that happen to be a pickle",
    152: "a datetime before 1970 with microseconds",
    153: "a naive datetime",
    157: "a value of an unknown class",
    # functions
    159: "a sync function with keyword arguments",
    160: "a sync function that raises",
    161: "a name that is taken",
    162: "one name in two modules",
    163: "the same source decorated again",
    164: "a function as a value",
    167: "the library takes no names",
    # service
    169: "temporary errors are tried again",
    171: "permanent errors are not",
    172: "a function that resets itself",
    173: "an empty gather, at a worker",
    174: "who called whom",
    175: "a call expires by default",
    177: "several starts at once",
    178: "a wrong key is refused",
    179: "limits of a poll are kept",
    180: "the client is in another process",
    # with a database
    199: "death after the round, before its commit",
    200: "death after the commit, before the calls begin",
    201: "two workers, one function",
    202: "one result stored twice at once",
    203: "a result arrives during a round",
    204: "a result for a function that is over",
    206: "what is in flight can be queried",
    208: "the version is compared before anything is decoded",
    209: "restart when the state does not fit",
    211: "a member that cannot be stored leaves nothing half written",
    213: "large ids fit their columns",
    214: "two functions with the same local ids",
    215: "both databases agree",
    216: "text that PostgreSQL rejects, and large values",
    217: "the order of delivery is stable",
    218: "a function expires",
    219: "a finished function is deleted",
    220: "a long poll ends in time",
}

PEER_CASES = {
    # steps
    1: "a step's value, and one run of its body",
    2: "a step uses the one before",
    3: "None, empty and nested values",
    4: "a codec of one step; live and stored are the same",
    5: "a step, a durable wait, a restart",
    8: "a step that always fails has as many attempts as allowed",
    9: "delays grow by the factor",
    10: "only listed exceptions are tried again",
    11: "a step that runs at most once, after a crash",
    12: "the same, with a retry policy",
    13: "a step that runs at least once, after a crash",
    14: "a failed step leaves no result",
    16: "the error says when to try again",
    19: "an argument that cannot be stored fails at the call, and does not loop",
    20: "an exception that cannot be rebuilt",
    # timers
    23: "a sleep by the database's clock",
    24: "a crash during a sleep",
    25: "a replay makes no second timer",
    26: "tests skip time",
    27: "two timers due at the same time",
    28: "fifty sleeps end in the order in which they are due",
    30: "a timer that lost a race wakes nobody",
    31: "due times with and without a zone",
    32: "a timer fires in the batch in which it is cancelled",
    33: "a sleep of nothing and less",
    # promises, signals, events
    36: "the first resolution counts",
    39: "a timeout is remembered",
    40: "many wait for one event",
    42: "resolved before it is awaited",
    43: "timed out before it is awaited",
    44: "two promises in both orders",
    48: "resolved while workers change",
    49: "resolved with nothing",
    51: "a signal with bad arguments",
    52: "signals before the first round",
    53: "wait until local state fulfils a condition",
    54: "look again and again, with a state",
    # composition
    56: "the result of a race is stable",
    60: "results in order of declaration",
    61: "no members",
    62: "one at a time, and fail fast",
    63: "enough successes",
    64: "a share of failures is tolerated",
    65: "a finished member is not run again",
    66: "parallel in parallel",
    68: "a child's error, caught or not",
    69: "a child called twice under one key",
    71: "calls to one target in order",
    73: "a thousand children, few rounds",
    76: "several parents await one child",
    # cancellation
    78: "cancel what has not begun",
    79: "cancel what waits",
    80: "cancel what runs",
    81: "cancel a parent",
    82: "cancelled as its child completes",
    83: "cancelled as its condition comes true",
    84: "cancel twice, cancel what is over, cancel nothing",
    85: "a cancellation that is swallowed",
    87: "cancel between two attempts",
    89: "very many cancellations",
    90: "pause instead of fail",
    92: "terminate, with a reason",
    93: "never started in time, never finished in time",
    94: "cancel what is not in memory",
    # crashes, leases, fences
    95: "SIGKILL in a step",
    97: "progress extends the lease",
    98: "cancelled and completed at once",
    101: "the commit of a round fails",
    102: "the database restarts",
    103: "death between the commit and the calls",
    104: "one worker id twice",
    105: "a worker is told to stop",
    109: "a stalled worker and its calls can be seen",
    # keys, limits, schedules
    110: "start twice with one key",
    112: "start with an id that exists",
    113: "signal and start in one",
    114: "at most two at once for one key",
    115: "a limit starves nobody else",
    117: "priorities",
    118: "schedules",
    119: "start within the user's transaction",
    # versions and deploys
    121: "pinned to the version it began on",
    123: "a worker of the wrong version refuses; what waits for which version",
    126: "code that does not fit the journal",
    127: "a step under another name",
    128: "new fields, optional and required",
    129: "rewind a failed run",
    130: "fork a run",
    132: "up and down again with work in flight",
    133: "migrate before and after the upgrade",
    134: "versions change while random programs run",
    # looking in
    135: "the stack of what is suspended",
    137: "logs appear once",
    138: "a plug-in that always fails",
    139: "hooks of attempts",
    140: "context of a trace",
    142: "retention",
    143: "an operator edits rows",
    144: "two tenants in one database",
    145: "an encrypting codec",
    146: "deterministic chance",
    148: "tools of asyncio inside",
    149: "main returns while a handler runs",
    150: "a timer after the end of main",
}

PENDING: set[int] = set()
"""Cases of the first part that are being built. A number goes when its test or its line comes."""

PENDING_PEER_CASES: set[int] = set()
"""The same for the second part."""


@functools.cache
def sources() -> list[tuple[str, ast.Module]]:
    """All test files, parsed, by their paths."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [(str(file.relative_to(ROOT)), ast.parse(file.read_text())) for file in files]


def marked(mark: str) -> Iterator[tuple[int, str]]:
    """The numbers under this mark in all test files, and where each stands."""
    for file, tree in sources():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if ast.unparse(node.func) == f"pytest.mark.{mark}":
                where = f"{file}:{node.lineno}"
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{where}: not a plain number"
                    yield argument.value, where


def decided(head: str) -> Iterator[tuple[int, str]]:
    """The numbers in the first columns that have this head, of all tables of decisions."""
    for page in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        heads: str | None = None  # of the table around the line
        for number, line in enumerate(page.read_text().splitlines(), 1):
            first = line.split("|")[1].strip() if line.startswith("|") else None
            if first is None or heads is None:
                heads = first
            elif heads == head:
                for each in re.findall(r"\d+", first):
                    yield int(each), f"{page.relative_to(ROOT)}:{number}"


class Part(NamedTuple):
    cases: dict[int, str]
    mark: str
    head: str
    pending: set[int]

    def covered(self) -> dict[int, str]:
        """The numbers that have a test or a line, and where the first of them stands."""
        return dict(reversed([*marked(self.mark), *decided(self.head)]))


@pytest.fixture(
    params=[
        Part(CASES, "case", "case", PENDING),
        Part(PEER_CASES, "peer_case", "peer's case", PENDING_PEER_CASES),
    ],
    ids=["ancestor", "peers"],
)
def part(request: pytest.FixtureRequest) -> Part:
    return request.param


def test_every_case_has_a_test_or_a_line_in_a_decision(part: Part) -> None:
    missing = part.cases.keys() - part.covered().keys() - part.pending

    assert {number: part.cases[number] for number in sorted(missing)} == {}


def test_every_number_is_that_of_a_case(part: Part) -> None:
    strangers = part.covered().keys() - part.cases.keys()

    assert {number: part.covered()[number] for number in sorted(strangers)} == {}


def test_what_is_pending_is_a_case_without_test_or_line(part: Part) -> None:
    assert part.pending <= part.cases.keys()
    assert {n: where for n, where in part.covered().items() if n in part.pending} == {}
