"""Image classification and re-identification as tasks for mutual learning."""

from sepml.errors import SepmlError

try:
    import timm as timm
    import torchvision as torchvision
except ImportError as error:
    raise SepmlError(f"networks for images need {error.name}: pip install 'sepml[vision]'") from error
