"""A server with a token that knows the name of its proxy."""

from collections.abc import Iterator

import pytest
from served import Guarded, guarded_server
from tiny_set import finish_set


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """`lmr serve` as deploy/ starts it."""
    folder = tmp_path_factory.mktemp("guarded")
    finish_set(folder)
    with guarded_server(folder) as guarded:
        yield guarded
