"""The parts of Lightning Fabric that training uses; nothing else imports them."""

from sepml.system.extras import needs_extra

with needs_extra("train", "training"):
    from lightning_fabric import Fabric as Fabric
    from lightning_fabric import wrappers as wrappers
    from lightning_fabric.plugins.environments import LightningEnvironment as LightningEnvironment
    from lightning_fabric.plugins.environments import TorchElasticEnvironment as TorchElasticEnvironment
    from lightning_fabric.strategies import Strategy as Strategy
    from lightning_fabric.strategies.ddp import DDPStrategy as DDPStrategy
