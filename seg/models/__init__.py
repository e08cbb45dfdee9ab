"""Networks behind one contract (``contract.py``), attention blocks, and the insertion of a block into any network."""

from seg.models import attention
from seg.models.contract import Network, parameter_count
from seg.models.insertion import insert_attention
from seg.models.networks import attention_unet, dynunet, segresnet, swin_unetr, unet, unetpp

__all__ = [
    "Network",
    "attention",
    "attention_unet",
    "dynunet",
    "insert_attention",
    "parameter_count",
    "segresnet",
    "swin_unetr",
    "unet",
    "unetpp",
]
