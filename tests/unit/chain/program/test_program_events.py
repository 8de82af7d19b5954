"""The event reader: what counts as an event, what is forged, cut or damaged, and that nothing makes it raise."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_samples import discriminator, key

from oracle.chain.program.events import (
    EVENT_LENGTHS,
    InferenceRecorded,
    RequestCancelled,
    RequestExpired,
    decode_event,
    read_events,
)

OURS, OTHER = key(200), key(201)


def cancelled(slot: int) -> bytes:
    return discriminator("event:RequestCancelled") + bytes(key(1)) + slot.to_bytes(8, "little")


def data(content: bytes) -> str:
    return f"Program data: {base64.b64encode(content).decode()}"


def invoke(program: object, depth: int) -> str:
    return f"Program {program} invoke [{depth}]"


def success(program: object) -> str:
    return f"Program {program} success"


EVENT = RequestCancelled(key(1), 7)


def test_an_event_of_ours_is_read() -> None:
    content = discriminator("event:InferenceRecorded") + b"".join(
        (bytes(key(1)), bytes(key(2)), bytes([3]) * 32, bytes([4]) * 32, (5).to_bytes(8, "little"), b"\xff" * 8)
    )
    logs = [invoke(OURS, 1), "Program log: Instruction: RecordInferenceResult", data(content), success(OURS)]
    assert len(content) == 8 + 144
    assert read_events(OURS, logs) == [InferenceRecorded(key(1), key(2), bytes([3]) * 32, bytes([4]) * 32, 5, -1)]


def test_events_of_several_instructions_are_read_in_order() -> None:
    logs = [line for slot in (1, 2, 3) for line in (invoke(OURS, 1), data(cancelled(slot)), success(OURS))]
    assert read_events(OURS, logs) == [RequestCancelled(key(1), slot) for slot in (1, 2, 3)]


def test_an_event_counts_when_another_program_calls_us() -> None:
    logs = [
        invoke(OTHER, 1),
        data(cancelled(1)),
        invoke(OURS, 2),
        data(cancelled(7)),
        success(OURS),
        data(cancelled(2)),
        success(OTHER),
    ]
    assert read_events(OURS, logs) == [EVENT]


def test_an_event_counts_on_either_side_of_a_call_of_ours_and_not_inside_it() -> None:
    logs = [
        invoke(OURS, 1),
        data(cancelled(7)),
        invoke(OTHER, 2),
        data(cancelled(1)),
        success(OTHER),
        data(cancelled(8)),
        success(OURS),
    ]
    assert read_events(OURS, logs) == [EVENT, RequestCancelled(key(1), 8)]


@pytest.mark.parametrize(
    "logs",
    [
        [],
        ["Log truncated"],
        [data(cancelled(7))],
        [invoke(OTHER, 1), data(cancelled(7)), success(OTHER)],
        [invoke(OURS, 1), success(OURS), data(cancelled(7))],
        [invoke(OURS, 1), f"Program log: {base64.b64encode(cancelled(7)).decode()}", success(OURS)],
        [invoke(OURS, 1), f"Program log: {data(cancelled(7))}", success(OURS)],
        [invoke(OTHER, 1), f"Program log: {invoke(OURS, 2)}", data(cancelled(7)), success(OTHER)],
        [invoke(OURS, 1), invoke(OTHER, 2), f"Program log: {success(OTHER)}", data(cancelled(7))],
        [invoke(OURS, 1), data(cancelled(7)[:-1]), success(OURS)],
        [invoke(OURS, 1), data(cancelled(7) + b"\0"), success(OURS)],
        [invoke(OURS, 1), data(b"abcd"), success(OURS)],
        [invoke(OURS, 1), "Program data: ", success(OURS)],
        [invoke(OURS, 1), "Program data: not base64!", success(OURS)],
        [invoke(OURS, 1), "Program data: äöü=", success(OURS)],
        [invoke(OURS, 1), f"{data(cancelled(7))} {base64.b64encode(b'second field').decode()}", success(OURS)],
        [invoke(OURS, 1), data(cancelled(7)), f"Program {OURS} failed: custom program error: 0x1771"],
    ],
)
def test_nothing_else_is_an_event(logs: list[str]) -> None:
    assert read_events(OURS, logs) == []


def test_a_cut_log_gives_the_events_before_the_cut() -> None:
    assert read_events(OURS, [invoke(OURS, 1), data(cancelled(7)), "Log truncated"]) == [EVENT]


def test_a_log_that_begins_in_the_middle_is_read_by_the_depths_in_it() -> None:
    logs = [success(OTHER), invoke(OURS, 3), data(cancelled(7)), success(OURS), data(cancelled(1)), success(OTHER)]
    assert read_events(OURS, logs) == [EVENT]


@pytest.mark.parametrize("event", EVENT_LENGTHS, ids=lambda event: event.__name__)
def test_every_field_of_every_event_is_read(event: type) -> None:
    head = discriminator(f"event:{event.__name__}")
    content = head + bytes(1 + at % 100 for at in range(EVENT_LENGTHS[event] - 8))
    read = decode_event(content)
    assert isinstance(read, event)
    values = [getattr(read, field.name) for field in fields(read)]
    assert len(set(map(str, values))) == len(values)
    assert (
        b"".join(raw(value, length) for value, length in zip(values, lengths(values, len(content) - 8), strict=True))
        == content[8:]
    )


def lengths(values: list[object], total: int) -> Iterator[int]:
    """Bytes of each field: 32 for keys and hashes; what is left is shared by the numbers, which are 8 but for one."""
    numbers = [value for value in values if isinstance(value, int)]
    left = total - 32 * (len(values) - len(numbers))
    for value in values:
        yield 32 if not isinstance(value, int) else (8 if value >= 2**32 else left - 8 * (len(numbers) - 1))


def raw(value: object, length: int) -> bytes:
    return value.to_bytes(length, "little") if isinstance(value, int) else bytes(value)  # type: ignore[call-overload, no-any-return]


ALPHABET = [
    invoke(OURS, 1),
    invoke(OURS, 2),
    invoke(OTHER, 1),
    invoke(OTHER, 2),
    invoke(OTHER, 99),
    "Program x invoke [0]",
    "Program  invoke [1]",
    success(OURS),
    success(OTHER),
    f"Program {OURS} consumed 1500 of 200000 compute units",
    f"Program return: {OURS} AQ==",
    data(cancelled(7)),
    data(cancelled(7)[:20]),
    "Program data: ====",
    "Program data:",
    "Program log: abcd",
    "Log truncated",
    "",
    "\x00\ud800",
]


@given(st.lists(st.sampled_from(ALPHABET) | st.text(max_size=80), max_size=30))
@settings(max_examples=300, deadline=None)
def test_no_log_makes_the_reader_raise(logs: list[str]) -> None:
    assert set(read_events(OURS, logs)) <= {EVENT}


def test_shuffled_and_damaged_logs_yield_nothing_but_what_was_logged() -> None:
    chance = random.Random(1)
    letters = "AQ=+/ \n\x00é"
    for _ in range(5_000):
        logs = chance.choices(ALPHABET, k=chance.randint(0, 12))
        if logs:
            at = chance.randrange(len(logs))
            cut = chance.randint(0, len(logs[at]))
            logs[at] = logs[at][:cut] + chance.choice(letters) + logs[at][cut + chance.randint(0, 2) :]
        for event in read_events(OURS, logs):
            assert isinstance(event, RequestCancelled | RequestExpired)
            assert any(line.startswith("Program data: ") for line in logs)


def test_random_bytes_behind_a_known_discriminator_decode_or_are_none() -> None:
    chance = random.Random(2)
    for event, length in EVENT_LENGTHS.items():
        head = discriminator(f"event:{event.__name__}")
        for _ in range(300):
            content = head + chance.randbytes(chance.choice((length - 8, chance.randrange(2 * length))))
            read = decode_event(content)
            assert isinstance(read, event) == (len(content) == length)
