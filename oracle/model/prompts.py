"""Questions that this tiny model answers well: for the demo, for tests, and for a look at whether it still is the same.

It knows little and reckons badly: of a dozen similar sums or reviews it gets three quarters right. These were chosen
among about 120, each asked alone as one user message at temperature 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """A prompt and what came back. `answer` is the text measured on x86-64 with xllamacpp 2026.10.11549.

    Another processor or another llama.cpp may word it differently; `fact`, a part of it, is what makes it right.
    """

    name: str
    prompt: str
    answer: str
    fact: str


KNOWN_ANSWERS: Final = (
    KnownAnswer("japan", "What is the capital city of Japan?", "The capital city of Japan is Tokyo.", "Tokyo"),
    KnownAnswer("egypt", "What is the capital city of Egypt?", "The capital city of Egypt is Cairo.", "Cairo"),
    KnownAnswer("sum", "Calculate 10 + 10.", "10 + 10 = 20.", "20"),
    KnownAnswer("product", "What is 2 times 3?", "2 times 3 is 6.", "6"),
    KnownAnswer("sequence", "What comes next: 1, 2, 3, 4,", "The next number in the sequence is 5.", "5"),
    KnownAnswer("plural", "What is the plural of mouse?", "The plural of mouse is mice.", "mice"),
    KnownAnswer("opposite", "What is the opposite of big?", "The opposite of big is small.", "small"),
    KnownAnswer(
        "past", "Rewrite this sentence in the past tense: I walk to school.", "I walked to school.", "walked to school"
    ),
    KnownAnswer("spanish", "Translate 'hello' to Spanish.", "Hola.", "Hola"),
    KnownAnswer("water", "What is the chemical symbol for water?", "The chemical symbol for water is H2O.", "H2O"),
    KnownAnswer(
        "negative-review",
        '"The food was terrible and the service was slow."\n\n'
        "Is this review positive or negative? Answer with one word.",
        "This review is negative.",
        "negative",
    ),
    KnownAnswer(
        "positive-review",
        '"Great value for the price."\n\nIs this review positive or negative? Answer with one word.',
        "This review is positive.",
        "positive",
    ),
    KnownAnswer(
        "fruits",
        "List three fruits.",
        "Here are three fruits that are commonly used in the food industry:\n\n1. Banana\n2. Apple\n3. Orange",
        "Apple",
    ),
    KnownAnswer(
        "blockchain",
        "What is blockchain? Answer in one sentence.",
        "Blockchain is a decentralized digital ledger technology that uses cryptography to record transactions across"
        " a network of computers. It allows for secure, transparent, and tamper-resistant data, making it resistant to"
        " manipulation and censorship.",
        "ledger",
    ),
)
