"""The backbone compiled by torch, where that works."""

import torch

from retrieval.model import DescriptorModel, to_input
from retrieval.training.freezing import train_mode
from retrieval.training.step import Setting, autocast


def compile_backbone(model: DescriptorModel, setting: Setting) -> str | None:
    """Compiles the backbone and tries it on an empty batch; why it cannot be, None if it can.

    What cannot be compiled runs as it is: from then on nothing in this process is compiled.
    """
    config, side = setting.config, setting.spec.size
    n_pictures = max(1, config.batch_size // setting.processes.n)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.backbone.compile()
    train_mode(model)
    try:
        with autocast(setting):
            empty = to_input(torch.zeros(n_pictures, 3, side, side, dtype=torch.uint8), setting.spec, setting.device)
            features = model.pooled(empty)
        if features.requires_grad:
            features.sum().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # of the compiler, of the one that it calls, of the system that has none
        torch.compiler.set_stance("force_eager")
        return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    finally:
        model.zero_grad(set_to_none=True)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return None
