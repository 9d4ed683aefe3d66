"""Lets torchvision be imported beside a torch that its compiled operators were not built for.

A torch for the CPU beside a torchvision for GPUs is such a pair. Its transforms of pictures, which are what processors need, are written in
Python; only the import fails, for two operators that it describes although they are not there. So they are declared before it.
"""

import importlib.abc
import sys

OPERATORS = ("nms", "qnms")


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in OPERATORS:
                torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, Finder())
