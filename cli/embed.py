"""lmr embed: the pictures of a manifest to a descriptor store."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.network import (
    build_network,
    description_of,
    description_options,
    network_options_from,
    network_request,
    picture_options,
    require_network,
)
from cli.options import (
    MODEL,
    PATH,
    check_option,
    config_option,
    device_option,
    given_options,
    images_folder,
    images_option,
    long_name,
    overwrite_option,
    workers_option,
    writes,
)
from cli.reading import load_manifest
from cli.tars import index_tars
from cli.terminal import say, warn
from retrieval.errors import LmrError
from retrieval.files.digest import sha256_json
from retrieval.model_config import ModelConfig
from retrieval.words import counted

if TYPE_CHECKING:
    from retrieval.model_card import Card


def _outputs(given: Mapping[str, Any]) -> list[Path]:
    """The store, and the model folder where a network is made."""
    from cli.describing import store_name

    store = given["output"] or store_name(given["manifest"], "--output")
    return [store, given["model"]] if "backbone" in given_options() else [store]


@click.command(name="embed")
@click.argument("manifest", type=PATH, default=Path("train.csv"))
@click.option("--model", type=PATH, default=MODEL, show_default=True, help="Model folder, or a file of lmr export.")
@click.option("--output", type=PATH, default=None, help="Store to write. [default: MANIFEST with .h5, beside it]")
@images_option
@picture_options
@description_options
@click.option(
    "--dtype", type=click.Choice(["float16", "float32"]), default="float16", show_default=True, help="Of the store."
)
@click.option("--retry-unreadable", is_flag=True, help="Try the unreadable pictures of a finished store again.")
@network_options_from(ModelConfig(n_dimensions=0))  # a neck that nothing has trained would only lose
@check_option
@workers_option
@device_option
@config_option
@overwrite_option
@click.pass_context
@writes(_outputs)
def command(ctx: click.Context, /, manifest: Path, model: Path, output: Path | None, **values: Any) -> None:
    """Turn the pictures of MANIFEST into a store of descriptors (HDF5), in the manifest's order.

    MANIFEST is a CSV or Parquet file, a folder or a tar; train.csv when it is not given. The network is that of
    --model; with --backbone it is made here and saved to --model. A stopped run goes on where it was.

    \b
    Example:
      lmr embed train.csv --backbone resnet50 --pretrained
      lmr embed train.csv --flip --size 288
    """
    from cli.describing import embed_manifest, fill_run, find_store
    from retrieval.filling import require_same_job

    output = output or find_store(manifest, "--output")
    asked = _network_options_given(ctx)
    if asked and "backbone" not in asked:
        raise LmrError(f"--{asked[0]} needs --backbone; without it the network is the one in --model {model}")
    index_tars(manifest)
    rows = load_manifest(manifest)
    images = images_folder(values["images"], manifest)

    def check(card: "Card") -> None:
        require_same_job(output, rows, card, fill_run(values))

    card = _make_card(model, values, check) if asked else _find_card(model, values)
    report = embed_manifest(rows, images, (model, card), output, values)
    if report.n_unreadable > len(report.unreadable):
        warn("--retry-unreadable tries the unreadable ones again; pictures that changed are tried without it")
    if report.state == "unchanged":
        say(f"{output}: finished already, nothing to do ({counted(report.n_pictures, 'picture')})")
    else:
        say(
            f"{output}: {counted(report.n_pictures - report.n_unreadable, 'descriptor')}, "
            f"{report.n_unreadable:,} unreadable"
        )


def _network_options_given(ctx: click.Context) -> list[str]:
    """Names of the options that say which network to make, as far as they were given."""
    names = {"pretrained", "weights", "mean", "std", *(item.name for item in fields(ModelConfig))}
    given = [parameter for parameter in ctx.command.params if parameter.name in names]
    sources = (ctx.get_parameter_source(str(parameter.name)) for parameter in given)
    defaults = (None, click.core.ParameterSource.DEFAULT)
    return [long_name(parameter) for parameter, source in zip(given, sources, strict=True) if source not in defaults]


def _find_card(model: Path, values: dict[str, Any]) -> "Card":
    """The card of the model, with the preparation that was asked for."""
    from retrieval.model_card import CARD
    from retrieval.opening import describe_otherwise, open_card

    if model.suffix != ".onnx" and not (model / CARD).exists():
        raise LmrError(
            f"{model}: there is no model; make one with lmr train train.csv, "
            "or use lmr embed --backbone resnet50 --pretrained"
        )
    return describe_otherwise(model, open_card(model), description_of(values))


def _make_card(model: Path, values: dict[str, Any], check: "Callable[[Card], None]") -> "Card":
    """Makes the network that was asked for and saves it to the model folder, unless that very model is there.

    check: is given its card before anything is written, and may raise.
    """
    require_network(values)
    request = sha256_json(network_request(values))
    if not values["overwrite"] and (made := _made_already(model, request)) is not None:
        return made
    import torch

    from retrieval.checkpoint import CARD, ModelCard, read_card, save_model, weights_digest
    from retrieval.device import resolve_device
    from retrieval.model_card import STATE_NAME, require_no_strangers

    resolve_device(values["device"])
    torch.manual_seed(0)
    network, spec = build_network(values)
    card = ModelCard(network.config, spec, weights_digest(network)).described(description_of(values))
    network.length(card.descriptor)  # refuses what the network does not have
    if (model / CARD).exists() and not values["overwrite"]:
        found = read_card(model)
        if (found.config, found.weights_sha256) != (card.config, card.weights_sha256):
            raise LmrError(f"{model} holds another model; give --overwrite or another --model")
        return card
    check(card)
    if not values["overwrite"]:
        require_no_strangers(model)
    if (model / STATE_NAME).exists():
        (model / STATE_NAME).unlink()
    made_by = {
        "backbone": values["backbone"],
        "pretrained": values["pretrained"],
        "weights": str(values["weights"] or ""),
        "request": request,
    }
    return save_model(
        model,
        network,
        card.image_spec,
        flip=card.flip,
        descriptor=card.descriptor,
        scales=card.scales,
        made_by=made_by,
    )


def _made_already(model: Path, request: str) -> "Card | None":
    """The card of the model that the same request made, where it is whole: known without making it again."""
    from retrieval.model_card import CARD, read_card, require_weights

    if not (model / CARD).exists():
        return None
    try:
        card = read_card(model)
        require_weights(model, card)
    except LmrError:
        return None
    return card if card.made_by.get("request") == request else None
