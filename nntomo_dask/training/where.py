"""Where PyTorch trains, and in which precision. PyTorch is imported when it is asked for."""

from typing import TYPE_CHECKING, Literal

from nntomo_dask.errors import refuse

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]


def chosen_device(device: Device, precision: Precision, *, who: str) -> "torch.device":
    """The device that is asked for; "auto" is a GPU where PyTorch sees one.

    Raises
    ------
    SchemaError
        There is no GPU, or the precision is none of the CPU's.
    """
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        refuse(who, needs="a GPU that PyTorch sees", got="none", remedy='`device="cpu"`')
    where = torch.device("cuda" if there and device != "cpu" else "cpu")
    if where.type == "cpu" and precision != "float32":
        refuse(who, needs="float32 on the CPU", got=precision, remedy='`precision="float32"`')
    return where
