"""All checks, in the order in which they are shown."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from ..client import Endpoint
from ..errors import AisError
from . import disk, installation, network, transforms
from .finding import Finding, Level

_Check = Callable[[], "Finding | list[Finding]"]


def examine(data: str | None, endpoint: Endpoint | AisError) -> Iterator[Finding]:
    """Yield what each check finds, as it finds it. ``endpoint`` may be the error that says why there is none."""
    clock = network.ClockWatch()
    yield installation.check_python()
    yield from installation.check_extras()
    yield installation.check_conflict()
    yield installation.check_shadows()
    yield transforms.check_features()
    served = not installation.missing_of("server")
    checks: list[tuple[str, _Check]] = [
        ("sandbox", transforms.check_sandbox),
        ("runtimes", transforms.check_runtimes),
        ("installer", transforms.check_installer),
        ("data", lambda: disk.check_data(data)),
        ("port", network.check_port),
    ]
    for name, check in checks:
        if served:
            yield from _made(name, check)
        else:
            yield Finding(name, Level.SKIP, "skipped: needs pyaistore[server]")
    yield from _made("temporary files", disk.check_temporary)
    yield from _made("open files", disk.check_open_files)
    if isinstance(endpoint, AisError):
        yield Finding("store", Level.FAIL, endpoint.message, endpoint.hint)
    else:
        yield network.check_proxy(os.environ, endpoint)
        yield from _made("store", lambda: network.check_store(endpoint))
    yield clock.check()


def _made(name: str, check: _Check) -> list[Finding]:
    """Make a check; one that the system keeps from being made is a finding as well."""
    try:
        found = check()
    except AisError as error:
        return [Finding(name, Level.WARN, f"could not be checked: {error.message}", error.hint)]
    except OSError as error:
        return [Finding(name, Level.WARN, f"could not be checked: {error}")]
    return [found] if isinstance(found, Finding) else found
