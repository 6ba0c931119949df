"""The backbones, by name."""

BACKBONES = {"resnet18": None, "resnet34": None, "resnet50": None, "efficientnet_lite0": None}
