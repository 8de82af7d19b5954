"""`oracle doctor`: everything that must be right before the daemon can earn, checked one by one."""

from __future__ import annotations

import asyncio

from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.cli.output import JsonOption


def doctor(config: ConfigOption = CONFIG, json: JsonOption = False) -> None:
    """Check configuration, key, database, cluster, program, queues and providers, and say what to mend."""
    # Imported here: other commands need not wait for the whole daemon to load.
    from oracle.cli.checks import show_checks
    from oracle.pipeline import checks

    show_checks(asyncio.run(checks.all_of(configuration(config))), json)
