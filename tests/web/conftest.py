"""A service over the tiny finished set, made once, and clients of apps over it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cli.web.app import make_app
from cli.web.settings import WebSettings
from index.serving.config import ServingSettings
from index.serving.service import Service


@pytest.fixture(scope="session")
def service(finished_set: Path) -> Iterator[Service]:
    """The index of the finished set, being served; neither is to be changed."""
    service = Service(finished_set / "landmarks", ServingSettings(), device="cpu", threads=1)
    yield service
    service.close()


@pytest.fixture(scope="session")
def client_of(service: Service) -> Callable[..., TestClient]:
    """Makes an httpx client of an app with some WebSettings; the app does not close the service."""

    def client_of(**settings: Any) -> TestClient:
        app = make_app(service, WebSettings(**settings))
        return TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)

    return client_of


@pytest.fixture(scope="session")
def client(client_of: Callable[..., TestClient]) -> TestClient:
    """An httpx client of the app as it is without options."""
    return client_of()
