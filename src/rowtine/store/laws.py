"""The laws of the rows: one query each, which finds no row in any committed state.

They are plain SQL and the same on both databases: on PostgreSQL they can be pasted into psql, on
SQLite without the ``rowtine.`` in front of each table. Numbers are for good: tests and docs cite
them, and a law that is dropped leaves a gap. Some repeat a CHECK: a constraint may have been
dropped, or added to a table that already broke it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from rowtine.store.dialect import read_whole_tables
from rowtine.store.tables import SCHEMA

__all__ = ["LAWS", "Law", "Violation", "check"]


@dataclass(frozen=True, slots=True)
class Law:
    """What always holds. `query` finds the rows for which it does not."""

    name: str
    meaning: str
    query: str


@dataclass(frozen=True, slots=True)
class Violation:
    """A row that breaks a law: which one, and what the law's query says of the row."""

    law: str
    row: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.law}: {', '.join(f'{name}={value}' for name, value in self.row.items())}"


LAWS = (
    Law(
        "I01_done_call_has_one_outcome",
        "A call is done if and only if it has an end, and it then has a status; a status of OK goes"
        " with no error.",
        """
        SELECT id, phase, status FROM rowtine.calls
        WHERE (phase = 'done') <> (finished_at IS NOT NULL)
           OR (phase = 'done' AND status IS NULL)
           OR (status = 'OK' AND error_type IS NOT NULL)
        """,
    ),
    Law(
        "I02_resolution_matches_outcome",
        "What a caller was told of a call is what the call came to.",
        """
        SELECT id, resolution, phase, status, error_type FROM rowtine.calls
        WHERE (resolution = 'result' AND (phase <> 'done' OR error_type IS NOT NULL))
           OR (resolution = 'error' AND (phase <> 'done' OR error_type IS NULL))
        """,
    ),
    Law(
        "I03_attempt_is_a_claim",
        "Each attempt is one claim, so there are never more attempts than claims; what runs has"
        " been claimed.",
        """
        SELECT id, phase, attempt, claim FROM rowtine.calls
        WHERE attempt > claim OR (phase = 'running' AND attempt < 1)
        """,
    ),
    Law(
        "I04_lease_iff_running",
        "A call has a worker and a lease if and only if it is running.",
        """
        SELECT id, phase, worker, lease_expires FROM rowtine.calls
        WHERE (phase = 'running') <> (worker IS NOT NULL)
           OR (phase = 'running') <> (lease_expires IS NOT NULL)
        """,
    ),
    Law(
        "I05_told_only_what_is_over",
        "A call that its caller no longer waits for is done, or is an execution that was told to"
        " stop and is winding up.",
        """
        SELECT id, phase, resolution, cancelling FROM rowtine.calls
        WHERE delivered_round IS NOT NULL AND phase <> 'done'
          AND NOT (resolution IN ('cancelled', 'timeout') AND phase = 'suspended'
                   AND cancelling)
        """,
    ),
    Law(
        "I06_outstanding_are_the_undelivered_calls",
        "states.outstanding_calls is the number of calls of the run that were not delivered.",
        """
        SELECT s.id, s.outstanding_calls, count(k.id) AS undelivered
        FROM rowtine.states s
        LEFT JOIN rowtine.calls k
               ON k.execution_id = s.id AND k.run = s.run AND k.delivered_round IS NULL
        GROUP BY s.id, s.outstanding_calls
        HAVING s.outstanding_calls <> count(k.id)
        """,
    ),
    Law(
        "I07_allocators_are_ahead",
        "The next ids of an execution are greater than all that it has given out.",
        """
        SELECT s.id, s.next_coroutine_id, s.next_call_id FROM rowtine.states s
        WHERE EXISTS (SELECT 1 FROM rowtine.calls k WHERE k.execution_id = s.id AND k.run = s.run
                        AND (k.call_id >= s.next_call_id OR k.coroutine_id >= s.next_coroutine_id))
           OR EXISTS (SELECT 1 FROM rowtine.coroutines c WHERE c.execution_id = s.id
                        AND c.run = s.run AND c.id >= s.next_coroutine_id)
           OR EXISTS (SELECT 1 FROM rowtine.futures f WHERE f.execution_id = s.id
                        AND f.run = s.run AND f.first_child + f.children > s.next_coroutine_id)
        """,
    ),
    Law(
        "I08_suspended_coroutine_has_one_pending_wait",
        "A suspended coroutine waits for exactly one thing.",
        """
        SELECT c.execution_id, c.run, c.id, count(w.seq) AS pending
        FROM rowtine.coroutines c
        LEFT JOIN (
            SELECT execution_id, run, coroutine_id, seq FROM rowtine.calls
            WHERE execution_id IS NOT NULL AND parent_id IS NULL AND resolution IS NULL
            UNION ALL
            SELECT execution_id, run, coroutine_id, seq FROM rowtine.futures
            WHERE resolution IS NULL
        ) w ON w.execution_id = c.execution_id AND w.run = c.run AND w.coroutine_id = c.id
        WHERE c.phase = 'suspended'
        GROUP BY c.execution_id, c.run, c.id
        HAVING count(w.seq) <> 1
        """,
    ),
    Law(
        "I09_done_coroutine_waits_for_nothing",
        "A coroutine that is done has no pending wait.",
        """
        SELECT c.execution_id, c.run, c.id, w.seq
        FROM rowtine.coroutines c
        JOIN (
            SELECT execution_id, run, coroutine_id, seq FROM rowtine.calls
            WHERE execution_id IS NOT NULL AND parent_id IS NULL AND resolution IS NULL
            UNION ALL
            SELECT execution_id, run, coroutine_id, seq FROM rowtine.futures
            WHERE resolution IS NULL
        ) w ON w.execution_id = c.execution_id AND w.run = c.run AND w.coroutine_id = c.id
        WHERE c.phase = 'done'
        """,
    ),
    Law(
        "I10_future_belongs_to_a_coroutine",
        "The coroutine that waits for a future exists.",
        """
        SELECT f.execution_id, f.run, f.coroutine_id, f.seq
        FROM rowtine.futures f
        LEFT JOIN rowtine.coroutines c
               ON c.execution_id = f.execution_id AND c.run = f.run AND c.id = f.coroutine_id
        WHERE c.id IS NULL
        """,
    ),
    Law(
        "I11_call_belongs_to_a_wait",
        "The coroutine that asked for a call exists; a member of a join is one of its children.",
        """
        SELECT k.id, k.execution_id, k.run, k.coroutine_id, k.parent_id, k.serves
        FROM rowtine.calls k
        LEFT JOIN rowtine.calls e ON e.id = k.execution_id
        LEFT JOIN rowtine.coroutines c
               ON c.execution_id = k.execution_id AND c.run = k.run AND c.id = k.coroutine_id
        LEFT JOIN rowtine.futures f
               ON f.execution_id = k.execution_id AND f.run = k.run AND f.coroutine_id = k.parent_id
              AND f.seq = k.serves AND k.coroutine_id >= f.first_child
              AND k.coroutine_id < f.first_child + f.children
        WHERE k.execution_id IS NOT NULL
          AND (e.id IS NULL OR k.run > e.current_run
               OR (k.parent_id IS NULL AND c.id IS NULL)
               OR (k.parent_id IS NOT NULL AND f.seq IS NULL))
        """,
    ),
    Law(
        "I12_pending_future_has_open_members",
        "A pending future counts the members that are still open, and there is one at least. (Of a"
        " wait for tasks they are members of a group that was spawned before.)",
        """
        SELECT execution_id, run, coroutine_id, seq, pending, open_coroutines, open_calls
        FROM (
            SELECT f.execution_id, f.run, f.coroutine_id, f.seq, f.pending,
                   (SELECT count(*) FROM rowtine.coroutines c
                    WHERE c.execution_id = f.execution_id AND c.run = f.run
                      AND c.id >= f.first_child AND c.id < f.first_child + f.children
                      AND (f.kind = 'task'
                           OR (c.parent_id = f.coroutine_id AND c.serves = f.seq))
                      AND c.phase = 'suspended') AS open_coroutines,
                   (SELECT count(*) FROM rowtine.calls k
                    WHERE k.execution_id = f.execution_id AND k.run = f.run
                      AND k.coroutine_id >= f.first_child
                      AND k.coroutine_id < f.first_child + f.children
                      AND ((f.kind = 'task' AND k.parent_id IS NOT NULL)
                           OR (k.parent_id = f.coroutine_id AND k.serves = f.seq))
                      AND k.delivered_round IS NULL) AS open_calls
            FROM rowtine.futures f
            WHERE f.resolution IS NULL
        ) members
        WHERE pending < 1 OR pending <> open_coroutines + open_calls
        """,
    ),
    Law(
        "I13_tree_is_a_tree",
        "A coroutine's parent is older, and waits, or has waited, for the join whose member the"
        " coroutine is; a call has the root of its caller.",
        """
        SELECT c.execution_id, c.run, c.id, c.parent_id, NULL AS root_id
        FROM rowtine.coroutines c
        LEFT JOIN rowtine.coroutines p
               ON p.execution_id = c.execution_id AND p.run = c.run AND p.id = c.parent_id
        LEFT JOIN rowtine.futures f
               ON f.execution_id = c.execution_id AND f.run = c.run AND f.coroutine_id = c.parent_id
              AND f.seq = c.serves AND c.id >= f.first_child AND c.id < f.first_child + f.children
        WHERE c.parent_id IS NOT NULL AND (p.id IS NULL OR p.id >= c.id OR f.seq IS NULL)
        UNION ALL
        SELECT k.id, k.run, k.coroutine_id, k.parent_id, k.root_id
        FROM rowtine.calls k
        JOIN rowtine.calls e ON e.id = k.execution_id
        WHERE k.root_id <> COALESCE(e.root_id, e.id)
        """,
    ),
    Law(
        "I14_one_main_coroutine",
        "A run of an execution that has suspended has exactly one coroutine without a parent, 0.",
        """
        SELECT s.id, s.run, count(c.id) AS mains
        FROM rowtine.states s
        LEFT JOIN rowtine.coroutines c
               ON c.execution_id = s.id AND c.run = s.run AND c.parent_id IS NULL AND c.id = 0
        GROUP BY s.id, s.run
        HAVING count(c.id) <> 1
        """,
    ),
    Law(
        "I15_child_of_a_done_parent_was_let_go",
        "A suspended child of a coroutine that is done was told to stop and is cleaning up, or its"
        " join was told to let it go on.",
        """
        SELECT c.execution_id, c.run, c.id, c.parent_id
        FROM rowtine.coroutines c
        JOIN rowtine.coroutines p
          ON p.execution_id = c.execution_id AND p.run = c.run AND p.id = c.parent_id
        JOIN rowtine.futures f
          ON f.execution_id = c.execution_id AND f.run = c.run AND f.coroutine_id = c.parent_id
         AND f.seq = c.serves
        WHERE p.phase = 'done' AND c.phase = 'suspended' AND NOT c.cancelled AND f.cancel_losers
        """,
    ),
    Law(
        "I16_what_is_over_leaves_nothing_open",
        "A run that is over has no suspended coroutine, no pending future and no undelivered call.",
        """
        SELECT e.id, e.phase, o.run, o.what
        FROM rowtine.calls e
        JOIN (
            SELECT execution_id, run, 'coroutine' AS what FROM rowtine.coroutines
            WHERE phase = 'suspended'
            UNION ALL
            SELECT execution_id, run, 'future' FROM rowtine.futures WHERE resolution IS NULL
            UNION ALL
            SELECT execution_id, run, 'call' FROM rowtine.calls
            WHERE execution_id IS NOT NULL AND delivered_round IS NULL
        ) o ON o.execution_id = e.id
        LEFT JOIN rowtine.states s ON s.id = e.id AND s.run = o.run
        WHERE e.phase <> 'suspended' OR s.id IS NULL
        """,
    ),
    Law(
        "I17_state_iff_suspended",
        "An execution has a state if and only if it is suspended, and the state is of its run.",
        """
        SELECT e.id, e.phase, e.current_run, s.run
        FROM rowtine.calls e
        LEFT JOIN rowtine.states s ON s.id = e.id
        WHERE (e.phase = 'suspended') <> (s.id IS NOT NULL) OR s.run <> e.current_run
        """,
    ),
    Law(
        "I18_no_lost_wake_up",
        "An execution that nothing will wake waits for an open call, has less results than it wants"
        " and was not told to stop unheard.",
        """
        SELECT s.id, s.outstanding_calls, s.arrived - s.delivered AS waiting, s.poll_min_results
        FROM rowtine.states s
        JOIN rowtine.calls e ON e.id = s.id
        WHERE s.wake_at IS NULL
          AND (s.worker IS NOT NULL
               OR s.arrived - s.delivered >= s.poll_min_results
               OR s.arrived - s.delivered >= s.outstanding_calls
               OR (e.cancelling AND EXISTS (
                       SELECT 1 FROM rowtine.coroutines c
                       WHERE c.execution_id = s.id AND c.run = s.run AND c.id = 0
                         AND c.phase = 'suspended' AND NOT c.cancelled)))
        """,
    ),
    Law(
        "I19_rounds_are_in_order",
        "A wait was made, and then ended, in rounds that its execution has had.",
        """
        SELECT k.id, k.created_round, k.delivered_round, s.round
        FROM rowtine.calls k
        LEFT JOIN rowtine.states s ON s.id = k.execution_id AND s.run = k.run
        WHERE k.execution_id IS NOT NULL
          AND (k.created_round IS NULL OR k.created_round < 1
               OR k.delivered_round < k.created_round
               OR COALESCE(k.delivered_round, k.created_round) > s.round)
        """,
    ),
    Law(
        "I20_arrivals_are_counted",
        "What has arrived and was not delivered is numbered, and that is arrived - delivered many.",
        """
        SELECT s.id, s.arrived, s.delivered, count(k.id) AS waiting
        FROM rowtine.states s
        LEFT JOIN rowtine.calls k
               ON k.execution_id = s.id AND k.run = s.run AND k.arrived IS NOT NULL
              AND k.arrived <= s.arrived
        GROUP BY s.id, s.arrived, s.delivered
        HAVING s.arrived - s.delivered <> count(k.id)
            OR count(k.id) <> count(DISTINCT k.arrived)
        """,
    ),
    Law(
        "I21_arrived_iff_done_and_undelivered",
        "A call has a place in the order of arrival if and only if its caller has it to take.",
        """
        SELECT k.id, k.phase, k.arrived, k.delivered_round
        FROM rowtine.calls k
        WHERE (k.arrived IS NOT NULL)
           <> (k.execution_id IS NOT NULL AND k.phase = 'done' AND k.delivered_round IS NULL)
        """,
    ),
    Law(
        "I22_queued_call_is_due",
        "What is queued for a worker or for the clock says when it is due, unless it is parked; a"
        " promise and a wait for a signal may say it; and nothing else does.",
        """
        SELECT id, kind, phase, due, parked FROM rowtine.calls
        WHERE (phase <> 'queued' AND due IS NOT NULL)
           OR (phase = 'queued' AND due IS NULL
               AND kind NOT IN ('promise', 'signal') AND NOT COALESCE(parked, false))
        """,
    ),
    Law(
        "I23_journal_has_no_gaps",
        "The waits of a coroutine are numbered from 0, each number once, the pending one last.",
        """
        SELECT execution_id, run, coroutine_id, count(*) AS waits, max(seq) AS last
        FROM (
            SELECT execution_id, run, coroutine_id, seq, resolution FROM rowtine.calls
            WHERE execution_id IS NOT NULL AND parent_id IS NULL
            UNION ALL
            SELECT execution_id, run, coroutine_id, seq, resolution FROM rowtine.futures
        ) waits
        GROUP BY execution_id, run, coroutine_id
        HAVING min(seq) <> 0 OR max(seq) <> count(*) - 1 OR count(*) <> count(DISTINCT seq)
            OR min(CASE WHEN resolution IS NULL THEN seq END) < max(seq)
        """,
    ),
    Law(
        "I24_future_was_decided_by_what_has_ended",
        "The member that decided a future has ended, as the future says. (A limit of time is none"
        " of the members: I31.)",
        """
        SELECT f.execution_id, f.run, f.coroutine_id, f.seq, f.decided_by, f.resolution
        FROM rowtine.futures f
        LEFT JOIN rowtine.coroutines c
               ON c.execution_id = f.execution_id AND c.run = f.run AND c.id = f.decided_by
              AND c.phase = 'done' AND (c.error_type IS NULL) = (f.resolution = 'result')
        LEFT JOIN rowtine.calls k
               ON k.execution_id = f.execution_id AND k.run = f.run
              AND k.coroutine_id = f.decided_by
              AND ((f.kind = 'task' AND k.parent_id IS NOT NULL)
                   OR (k.parent_id = f.coroutine_id AND k.serves = f.seq))
              AND k.resolution IS NOT NULL AND (k.resolution = 'result') = (f.resolution = 'result')
        WHERE f.decided_by IS NOT NULL AND COALESCE(f.resolution, '') <> 'timeout'
          AND c.id IS NULL AND k.id IS NULL
        """,
    ),
    Law(
        "I25_token_iff_promise",
        "A call has a token if and only if it is a promise, and no two have the same.",
        """
        SELECT id, kind, execution_id FROM rowtine.calls
        WHERE (kind = 'promise') <> (token IS NOT NULL)
           OR token IN (SELECT token FROM rowtine.calls WHERE token IS NOT NULL
                        GROUP BY token HAVING count(*) > 1)
        """,
    ),
    Law(
        "I26_taken_signal_answers_its_wait",
        "What has taken a signal is a wait of that execution for a signal of that name, and the"
        " signal's value is what it came to.",
        """
        SELECT s.execution_id, s.number, s.name, s.call_id
        FROM rowtine.signals s
        LEFT JOIN rowtine.calls k
               ON k.id = s.call_id AND k.execution_id = s.execution_id AND k.kind = 'signal'
              AND k.function = s.name AND k.phase = 'done' AND k.status = 'OK'
              AND COALESCE(CAST(k.output AS TEXT), '') = COALESCE(CAST(s.value AS TEXT), '')
        WHERE s.call_id IS NOT NULL AND k.id IS NULL
        """,
    ),
    Law(
        "I27_no_signal_beside_a_wait_for_it",
        "No signal is queued while its execution waits for one of its name.",
        """
        SELECT s.execution_id, s.number, s.name, k.id
        FROM rowtine.signals s
        JOIN rowtine.calls k
          ON k.execution_id = s.execution_id AND k.kind = 'signal' AND k.function = s.name
         AND k.phase = 'queued'
        WHERE s.call_id IS NULL
        """,
    ),
    Law(
        "I28_signals_have_no_gaps",
        "The signals of an execution are numbered from 1, each number once.",
        """
        SELECT execution_id, count(*) AS signals, min(number) AS first, max(number) AS last
        FROM rowtine.signals
        GROUP BY execution_id
        HAVING min(number) <> 1 OR max(number) <> count(*)
            OR count(*) <> count(DISTINCT number)
        """,
    ),
    Law(
        "I29_parked_call_has_no_room",
        "A parked call is an open member of a group with a limit, as many of whose members as may"
        " run at once have begun and were not delivered.",
        """
        SELECT id, execution_id, run, parent_id, serves, max_concurrency, begun
        FROM (
            SELECT k.id, k.execution_id, k.run, k.parent_id, k.serves, k.phase, k.delivered_round,
                   f.max_concurrency,
                   (SELECT count(*) FROM rowtine.calls o
                    WHERE o.execution_id = f.execution_id AND o.run = f.run
                      AND o.coroutine_id >= f.first_child
                      AND o.coroutine_id < f.first_child + f.children
                      AND o.parent_id = f.coroutine_id AND o.serves = f.seq
                      AND NOT o.parked AND o.delivered_round IS NULL) AS begun
            FROM rowtine.calls k
            LEFT JOIN rowtine.futures f
                   ON f.execution_id = k.execution_id AND f.run = k.run
                  AND f.coroutine_id = k.parent_id AND f.seq = k.serves
            WHERE k.parked
        ) parked
        WHERE phase <> 'queued' OR delivered_round IS NOT NULL
           OR max_concurrency IS NULL OR begun <> max_concurrency
        """,
    ),
    Law(
        "I30_failed_members_are_counted",
        "A pending `all` counts the members that failed, and bears as many; others count none.",
        """
        SELECT execution_id, run, coroutine_id, seq, kind, failed, max_failures, found
        FROM (
            SELECT f.execution_id, f.run, f.coroutine_id, f.seq, f.kind, f.failed, f.max_failures,
                   (SELECT count(*) FROM rowtine.coroutines c
                    WHERE c.execution_id = f.execution_id AND c.run = f.run
                      AND c.id >= f.first_child AND c.id < f.first_child + f.children
                      AND c.parent_id = f.coroutine_id AND c.serves = f.seq
                      AND c.error_type IS NOT NULL)
                 + (SELECT count(*) FROM rowtine.calls k
                    WHERE k.execution_id = f.execution_id AND k.run = f.run
                      AND k.coroutine_id >= f.first_child
                      AND k.coroutine_id < f.first_child + f.children
                      AND k.parent_id = f.coroutine_id AND k.serves = f.seq
                      AND k.resolution <> 'result') AS found
            FROM rowtine.futures f
            WHERE f.resolution IS NULL
        ) members
        WHERE (kind = 'all' AND (failed <> found OR failed > max_failures))
           OR (kind <> 'all' AND failed <> 0)
        """,
    ),
    Law(
        "I31_time_limit_is_a_timer",
        "What ended a wait whose time was up is a timer of the coroutine that waited, of its run,"
        " which has fired.",
        """
        SELECT w.execution_id, w.run, w.coroutine_id, w.seq, w.decided_by
        FROM (
            SELECT execution_id, run, coroutine_id, seq, decided_by FROM rowtine.calls
            WHERE resolution = 'timeout'
            UNION ALL
            SELECT execution_id, run, coroutine_id, seq, decided_by FROM rowtine.futures
            WHERE resolution = 'timeout'
        ) w
        LEFT JOIN rowtine.calls t
               ON t.execution_id = w.execution_id AND t.run = w.run
              AND t.coroutine_id = w.decided_by AND t.parent_id = w.coroutine_id
              AND t.kind = 'timer' AND t.resolution = 'result'
        WHERE t.id IS NULL
        """,
    ),
    Law(
        "I32_key_is_one_call",
        "A function and a key are one call, which nobody has asked for from inside an execution.",
        """
        SELECT k.id, k.key, COALESCE(k.asked_function, k.function) AS function, k.execution_id
        FROM rowtine.calls k
        WHERE k.key IS NOT NULL
          AND (k.execution_id IS NOT NULL
               OR EXISTS (SELECT 1 FROM rowtine.calls o
                          WHERE o.key = k.key AND o.id <> k.id
                            AND COALESCE(o.asked_function, o.function)
                              = COALESCE(k.asked_function, k.function)))
        """,
    ),
)


def check(connection: Connection) -> list[Violation]:
    """Everything in these tables that breaks a law: nothing, if all is well.

    The laws hold in each committed state, so `connection` needs one snapshot for all of them: one
    of `Database.reading`, or any on SQLite.
    """
    schema = connection.get_execution_options()["schema_translate_map"][SCHEMA]
    prefix = f'"{schema}".' if schema else ""
    read_whole_tables(connection)
    return [
        Violation(law.name, dict(row))
        for law in LAWS
        for row in connection.execute(text(law.query.replace("rowtine.", prefix))).mappings()
    ]
