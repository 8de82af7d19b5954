"""Jobs on a server that is rented for them, whoever rents it out."""

from __future__ import annotations

import pytest
from provider_jobs import ended

from oracle.core.compute import IdempotencyKey, JobStatus, Message, Task
from oracle.core.errors import OracleError
from oracle.providers.rented.compute import RentedCompute

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TASK = Task(MODEL, (Message("user", "What is six times seven?"),), max_output_tokens=64, seed=7, timeout_seconds=20)


async def run(compute: RentedCompute, key: str = "k", task: Task = TASK) -> JobStatus:
    return await ended(compute, await compute.submit(task, IdempotencyKey(key)))


async def error_of(compute: RentedCompute, task: Task = TASK) -> OracleError:
    with pytest.raises(OracleError) as caught:
        await compute.answer(task)
    return caught.value
