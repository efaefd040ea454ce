"""Networks of torchvision and timm without their hundred other families.

Of their modules only the one that has the network is imported; all of torchvision takes as long as torch itself.
"""

import importlib
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, NamedTuple

_once = threading.RLock()


class _Deferred(ModuleType):
    """A package whose own code runs when something is first asked of it that the modules in it have not brought.

    So `import timm` gives everybody else in this process all of timm, however little of it was needed before.
    """

    def __getattr__(self, name: str) -> Any:
        with _once:
            if type(self) is _Deferred:
                self.__class__ = ModuleType  # type: ignore[assignment]
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                try:
                    self.__spec__.loader.exec_module(self)
                except BaseException:
                    self.__class__ = _Deferred
                    raise
        return getattr(self, name)


class Timm(NamedTuple):
    """The functions of timm by these names."""

    create_model: Callable[..., Any]
    get_pretrained_cfg: Callable[[str], Any]
    is_model_pretrained: Callable[[str], bool]


def timm_with(module: str) -> Timm:
    """timm as far as it knows the networks of one of the modules in `timm.models`."""
    with _once:
        _defer_torchvision()
        if "timm" not in sys.modules:
            package = _defer("timm")
            package.__version__ = importlib.import_module("timm.version").__version__  # type: ignore[attr-defined]
            package.models = _defer("timm.models")  # type: ignore[attr-defined]
        importlib.import_module(f"timm.models.{module}")
    factory = importlib.import_module("timm.models._factory")
    registry = importlib.import_module("timm.models._registry")
    return Timm(factory.create_model, registry.get_pretrained_cfg, registry.is_model_pretrained)


def torchvision_maker(module: str, name: str) -> Callable[..., Any]:
    """The function that makes a network of torchvision, in one of the modules of `torchvision.models`."""
    with _once:
        _defer_torchvision()
        maker: Callable[..., Any] = getattr(importlib.import_module(f"torchvision.models.{module}"), name)
    return maker


def _defer_torchvision() -> None:
    """Most families need a layer or two of `torchvision.ops`; all of its operators bring in torch's compiler."""
    if "torchvision" not in sys.modules:
        package = _defer("torchvision")
        for name in ("models", "ops"):
            setattr(package, name, _defer(f"torchvision.{name}"))


def _defer(name: str) -> ModuleType:
    spec = find_spec(name)
    assert spec is not None
    package = module_from_spec(spec)
    package.__class__ = _Deferred
    sys.modules[name] = package
    return package
