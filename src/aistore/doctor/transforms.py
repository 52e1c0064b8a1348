"""Checks of what transforms need: the sandbox, interpreters, an installer. They need the server extra."""

from __future__ import annotations

import os
import subprocess
import sys

from ..errors import AisError
from ..fallbacks import VARIABLE, lacking, taken_away
from .finding import Finding, Level

_INDEX_SECONDS = 10.0


def check_sandbox() -> Finding:
    """Enter the sandbox as a transform does."""
    from ..etl.probe import probe_sandbox

    found = probe_sandbox()
    if found.error:
        return Finding(
            "sandbox", Level.WARN, f"{found.profile}: {found.error}",
            "`ais etl init` refuses here unless `--sandbox off` gives a transform all rights of the store",
        )  # fmt: skip
    if found.missing:
        advice = "transforms run; docs/security.md says what each layer stops"
        return Finding("sandbox", Level.WARN, f"{found.profile}; missing: {'; '.join(found.missing)}", advice)
    return Finding("sandbox", Level.OK, f"{found.profile} ({'; '.join(found.layers)})")


def check_features() -> Finding:
    """Check which features of the system are lacking, or taken away by AIS_WITHOUT."""
    try:
        away = sorted(taken_away())
    except AisError as error:
        return Finding("features", Level.FAIL, error.message, error.hint)
    absent = lacking()
    if away:
        found = f"{VARIABLE} takes away: {', '.join(away)}"
        return Finding("features", Level.WARN, found, f"unset {VARIABLE}, which is for tests and finding faults")
    if absent:
        return Finding("features", Level.WARN, f"lacking: {', '.join(absent)}", "docs/platforms.md says what is slower")
    return Finding("features", Level.OK, "nothing is lacking")


def check_runtimes() -> Finding:
    """Find the interpreters for ``--runtime``."""
    from ..etl.environments.runtimes import find_runtimes

    try:
        runtimes = find_runtimes()
    except AisError as error:
        return Finding("runtimes", Level.FAIL, error.message, error.hint)
    without = [name for name, runtime in runtimes.items() if not runtime.has_venv]
    found = ", ".join(f"{name} ({runtime.version})" for name, runtime in runtimes.items())
    if without:
        advice = "install it (`apt install python3-venv`): transforms with dependencies need it"
        return Finding("runtimes", Level.WARN, f"{found}; without venv: {', '.join(without)}", advice)
    return Finding("runtimes", Level.OK, found)


def check_installer() -> list[Finding]:
    """Check that pip works and reaches its index, with the operator's settings; never longer than some seconds."""
    from ..etl.environments import installer
    from ..etl.environments.runtimes import resolve_runtime

    try:
        runtime = resolve_runtime("python3")
        runner = installer.pip_runner(runtime)
        settings = installer.read_settings(os.environ, runtime)
    except AisError as error:
        return [Finding("installer", Level.WARN, error.message, error.hint)]
    usable = Finding("installer", Level.OK, f"pip at {os.path.dirname(runner)}")
    return [usable, _check_index(runner, settings.index())]


def _check_index(runner: str, index: str) -> Finding:
    """Ask the index for one package, as pip does when it installs: with its proxy, certificates and credentials."""
    if index.startswith("none"):
        advice = "transforms with dependencies need an index or find-links (`pip config debug`)"
        return Finding("index", Level.WARN, "pip is set up to use no index", advice)
    command = [
        sys.executable, runner, "index", "versions", "pip", "--disable-pip-version-check", "--no-input",
        "--timeout", "4", "--retries", "0",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_INDEX_SECONDS, text=True, check=False
        )
        answered, said = done.returncode == 0, done.stderr
    except subprocess.TimeoutExpired:
        answered, said = False, f"no answer within {_INDEX_SECONDS:.0f} s"
    if answered:
        return Finding("index", Level.OK, f"{index} answers")
    from ..etl.environments.requirements import mask_credentials

    errors = [line for line in said.splitlines() if line.startswith("ERROR")] or said.strip().splitlines()[-1:]
    reason = mask_credentials(errors[0])[:200] if errors else "pip said nothing"
    advice = "dependencies cannot be installed: see `pip config debug`, and the proxy in https_proxy"
    return Finding("index", Level.WARN, f"{index} does not answer: {reason}", advice)
