"""Networks for small images that no library has: from (classes, channels, whether images are small) to a module."""

from torch import Tensor, nn
from torch.nn import functional as F


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a shortcut without weights: every second pixel, and channels of zeros."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_conv(inside, outside, stride), nn.ReLU(), *_conv(outside, outside))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        body = self.body(x)
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(body + F.pad(shortcut, (0, 0, 0, 0, 0, body.shape[1] - x.shape[1])))


class _WideBlock(nn.Module):
    """Norms and activations before two 3 x 3 convolutions, and a 1 x 1 convolution as shortcut where the channels change."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inside)
        conv, norm = _conv(inside, outside, stride)
        self.body = nn.Sequential(conv, norm, nn.ReLU(), _conv(outside, outside)[0])
        self.shortcut = None if inside == outside else nn.Conv2d(inside, outside, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        ready = F.relu(self.norm(x))
        return self.body(ready) + (x if self.shortcut is None else self.shortcut(ready))


def _conv(inside: int, outside: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    return nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outside)


def _head(features: int, classes: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)


def resnet32(classes: int, channels: int, _small: bool) -> nn.Module:
    """ResNet of 6 n + 2 layers with n = 5: He et al., CVPR 2016, section 4.2."""
    sizes = [(16, 16, 1), *[(16, 16, 1)] * 4, (16, 32, 2), *[(32, 32, 1)] * 4, (32, 64, 2), *[(64, 64, 1)] * 4]
    return nn.Sequential(*_conv(channels, 16), nn.ReLU(), *[_Block(*size) for size in sizes], *_head(64, classes))


def wrn28_10(classes: int, channels: int, _small: bool) -> nn.Module:
    """Wide ResNet of 6 n + 4 layers with n = 4, ten times as wide: Zagoruyko, Komodakis, BMVC 2016."""
    sizes = [(16, 160, 1), *[(160, 160, 1)] * 3, (160, 320, 2), *[(320, 320, 1)] * 3, (320, 640, 2), *[(640, 640, 1)] * 3]
    blocks = [_WideBlock(*size) for size in sizes]
    return nn.Sequential(_conv(channels, 16)[0], *blocks, nn.BatchNorm2d(640), nn.ReLU(), *_head(640, classes))


def small_cnn(classes: int, channels: int, _small: bool) -> nn.Module:
    """Three convolutions, for tests and first looks."""
    layers: list[nn.Module] = []
    for inside, outside, stride in ((channels, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [*_conv(inside, outside, stride), nn.ReLU()]
    return nn.Sequential(*layers, *_head(64, classes))
