"""The workloads, in the order in which a round goes through them."""

from __future__ import annotations

from benchmarks.alone.churn import CHURN
from benchmarks.alone.flat_rounds import FLAT_ROUNDS
from benchmarks.alone.idle import IDLE
from benchmarks.alone.memory import MEMORY
from benchmarks.alone.million import DRAIN, FULL_TABLES
from benchmarks.alone.rebuild import REBUILD
from benchmarks.alone.scale_out import SCALE_OUT
from benchmarks.alone.synchronous import SYNCHRONOUS
from benchmarks.workloads.chain import CHAIN
from benchmarks.workloads.crash import CRASH
from benchmarks.workloads.fan_out import FAN_OUT, WIDE_FAN_OUT
from benchmarks.workloads.insert import INSERTS
from benchmarks.workloads.latency import JOB_LATENCY, WORKFLOW_LATENCY
from benchmarks.workloads.throughput import JOBS, ONE_STEP, TEN_STEPS
from benchmarks.workloads.workload import Workload

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        INSERTS,
        TEN_STEPS,
        ONE_STEP,
        JOBS,
        CHAIN,
        FAN_OUT,
        WIDE_FAN_OUT,
        JOB_LATENCY,
        WORKFLOW_LATENCY,
        CRASH,
        FLAT_ROUNDS,
        REBUILD,
        SCALE_OUT,
        FULL_TABLES,
        DRAIN,
        CHURN,
        SYNCHRONOUS,
        MEMORY,
        IDLE,
    )
}
