"""Image classification and re-identification as tasks for mutual learning."""

from sepml.system.extras import needs_extra

with needs_extra("vision", "work on images"):
    import timm as timm
    import torchvision as torchvision
