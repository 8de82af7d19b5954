"""From settings to the small model on this machine."""

from __future__ import annotations

from oracle.core.compute import Recovery
from oracle.model.weights import weights_directory
from oracle.providers.chat import ChatCompute, Limits
from oracle.providers.local.client import LocalChat
from oracle.providers.settings import LocalSettings
from oracle.providers.site import Site


def local(site: Site, settings: LocalSettings) -> ChatCompute:
    chat = LocalChat(
        site.name,
        settings.directory or weights_directory(site.environ),
        threads=settings.threads,
        context_tokens=settings.context_tokens,
    )
    # One at a time: a job that waits here is known to be unsent, one that waits inside llama.cpp is not.
    limits = Limits(concurrent_jobs=1, kept_jobs=settings.max_kept_jobs)
    return ChatCompute(site.name, chat, recovery=Recovery.REPEAT, limits=limits)
