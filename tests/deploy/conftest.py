"""A server with a token that knows the name of its proxy."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from served import Served, served
from tiny_set import finish_set

SITE = "landmarks.example.org"


@dataclass(frozen=True)
class Guarded:
    """A server that asks for a token, and the token."""

    server: Served
    token: str


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """`lmr serve` as deploy/ starts it."""
    folder = tmp_path_factory.mktemp("guarded")
    finish_set(folder)
    token, path = secrets.token_hex(32), folder / "token"
    path.touch(0o600)
    path.write_text(token)
    words = ("--token-file", str(path), "--allowed-host", SITE, "--trusted-proxy", "127.0.0.1", "--access-log")
    with served(folder, *words) as server:
        yield Guarded(server, token)
