"""The core's tests may be asked to be quick: mutation testing runs them once for each of a thousand changes."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile(
    "mutants",
    max_examples=50,
    deadline=None,  # a mutated function is called through a detour
    derandomize=True,  # whether a change is noticed must not be a matter of luck
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
