"""Names of networks read from source, against what the libraries say of themselves."""

import pytest

from retrieval.errors import LmrError
from retrieval.models.backbones import PLAIN
from retrieval.models.names import PLAIN_NAMES, known_names, module_of, renamed_names, require_name


def test_the_plain_networks_are_named() -> None:
    assert tuple(PLAIN) == PLAIN_NAMES


def test_the_names_of_torchvision_are_those_that_it_lists() -> None:
    from torchvision import models

    assert known_names("torchvision") == set(models.list_models(module=models))


def test_the_names_of_timm_are_those_that_it_lists_and_takes() -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    assert known_names("timm") == set(timm.list_models())
    assert renamed_names("timm")
    assert all(timm.is_model(name) for name in renamed_names("timm"))
    for name in (*sorted(renamed_names("timm"))[:3], "resnet18", "resnet18.a1_in1k"):
        require_name(f"timm:{name}")


def test_the_module_of_a_network_is_the_one_that_timm_takes_it_from() -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    found = {name: f"timm.models.{module_of(f'timm:{name}')}" for name in timm.list_models()}
    assert found == {name: timm.model_entrypoint(name).__module__ for name in timm.list_models()}
    assert module_of("timm:resnet18.a1_in1k") == "resnet"


def test_the_module_of_a_network_is_the_one_that_torchvision_takes_it_from() -> None:
    from torchvision import models

    names = models.list_models(module=models)
    found = {name: f"torchvision.models.{module_of(name)}" for name in names}
    assert found == {name: models.get_model_builder(name).__module__ for name in names}


def test_a_package_that_is_not_there_has_no_names() -> None:
    assert known_names("no_such_package") == frozenset()


def test_weights_of_timm_that_nobody_published_are_asked_of_timm() -> None:
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    bare = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    require_name("timm:resnet18", pretrained=True)
    with pytest.raises(LmrError) as caught:
        require_name(f"timm:{bare}", pretrained=True)
    assert str(caught.value) == (
        f"`backbone` timm:{bare}: there are no pretrained weights of it; leave out `pretrained` "
        "(in a recipe: pretrained=false)"
    )
