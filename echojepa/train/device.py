"""Every choice that depends on the device, in one file. Chosen by what is there, never by a flag.

Must be imported before DeepSpeed, which picks its accelerator from the environment when imported.
"""

from __future__ import annotations

import os
import platform
import resource

import torch

from echojepa.errors import ClusterError, first_line

_PEAK_BFLOAT16_FLOPS = {
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "V100": 125e12,
}
"""Dense bfloat16 (V100: float16) peaks from NVIDIA's data sheets."""


def training_device() -> torch.device:
    """This process's CUDA device if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def collective_backend() -> str:
    """Backend of the process group: gloo always carries host tensors, NCCL the device's."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def prepare_process(num_threads: int | None = None) -> torch.device:
    """Set what must be set once per training process; returns its device.

    float32 matrix products on CUDA use TF32, which is off by default and eight times slower.
    """
    if num_threads:
        torch.set_num_threads(num_threads)
    torch.set_float32_matmul_precision("high")
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    return training_device()


def peak_flops(device: torch.device) -> float | None:
    """Peak FLOP/s of the device in bfloat16, or None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    matches = [flops for part, flops in _PEAK_BFLOAT16_FLOPS.items() if part in name]
    return matches[0] if matches else None


def device_memory_bytes() -> int:
    """Memory of this process's CUDA device.

    Raises:
        ClusterError: PyTorch can't use it, for instance because the driver is older than the CUDA
            that PyTorch was built with.
    """
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        raise ClusterError(
            f"PyTorch cannot use the GPUs of node {platform.node()}: {first_line(error)}",
            f"PyTorch {torch.__version__} is built for CUDA {torch.version.cuda}: update the "
            "driver, or install a build for an older CUDA.",
            "cluster",
        ) from None
    return int(torch.cuda.get_device_properties(0).total_memory)


def memory_bytes(device: torch.device) -> int:
    """Peak memory of this process: on the device, or resident on the host for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
