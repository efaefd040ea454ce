"""A small ONNX file that needs no network to be made of."""

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from retrieval.embed.onnx_embedder import CARD_KEY
from retrieval.images.spec import ImageSpec
from retrieval.models.card import Card, ModelCard
from retrieval.models.config import ModelConfig

SIDE = 16  # pixels
MEANS = ModelCard(ModelConfig("means", n_dimensions=0), ImageSpec(size=SIDE), "a" * 64)


def write_means(path: Path, card: Card = MEANS, metadata: dict[str, str] | None = None) -> Path:
    """An ONNX file whose descriptor of an image is its mean colour, of unit length."""
    nodes = [
        helper.make_node("Cast", ["pictures"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("LpNormalization", ["mean"], ["descriptors"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {CARD_KEY: json.dumps(card.to_json())} if metadata is None else metadata)
    onnx.save(model, str(path))
    return path
