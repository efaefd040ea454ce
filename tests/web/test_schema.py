"""What schemathesis makes of the OpenAPI document: nothing that it says may be asked breaks the server."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy, one_of
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cli.web.app import make_app
from cli.web.settings import WebSettings
from index.serving.service import Service


@pytest.fixture(scope="module")
def document(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The document of an app that allows all that needs no token."""
    said = tmp_path_factory.mktemp("feedback")
    app = make_app(service, WebSettings(allow_originals=True, feedback_folder=said / "said"))
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    schema.config.update(base_url="http://127.0.0.1:8080")
    return schema


def test_no_request_that_the_document_allows_breaks_the_server(document: Any) -> None:
    n_operations = 0
    for found in document.get_all_operations():
        strategies = [found.ok().as_strategy(generation_mode=mode) for mode in GenerationMode]
        ask(one_of(strategies))
        n_operations += 1
    assert n_operations >= 10


def ask(cases: SearchStrategy[Any]) -> None:
    """Asks what is drawn, and compares each answer with the document: its status, type, headers and schema."""

    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def call(case: Any) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    call()
