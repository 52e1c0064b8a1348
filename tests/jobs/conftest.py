"""A store for jobs, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from job_requests import Http

from aistore.testing import StoreProcess


@pytest.fixture(scope="module")
def http() -> Iterator[Http]:
    with StoreProcess() as process:
        yield Http(process)
        assert "Traceback" not in process.errors(), process.errors()


@pytest.fixture(scope="module")
def reverse(http: Http) -> str:
    return http.etl("def transform(data):\n    return data[::-1]\n", id="reverse-etl")
