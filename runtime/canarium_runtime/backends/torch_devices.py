"""Arrays to torch's tensors and back, for the CPU and for CUDA.

On the CPU both share memory, so nothing is copied. On a GPU each worker thread has a stream of its own and pinned
memory, so that copies of one batch overlap with the arithmetic of another.

Limitation: the CUDA half is written from torch's documentation and tested with a double of the library; it has not run
on a GPU.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from canarium_runtime.backends.base import DTYPES, Array

Program = Callable[..., Sequence[Any]]
"""From tensors to tensors, both in order."""
BFLOAT16 = DTYPES["BF16"]


class Transfer(Protocol):
    """Runs a program on arrays."""

    def run(self, program: Program, arrays: Sequence[Array]) -> list[Array]:
        """Bring the arrays to the device, run, and bring the outputs back."""
        ...


class HostTransfer:
    """The CPU's.

    Args:
        torch: the library.
    """

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    def run(self, program: Program, arrays: Sequence[Array]) -> list[Array]:
        """See `Transfer`."""
        with self._torch.inference_mode():
            outputs = program(*[to_tensor(self._torch, a) for a in arrays])
            return [to_array(self._torch, t) for t in outputs]


class CudaTransfer:
    """A GPU's.

    Args:
        torch: the library.
        index: which GPU.
    """

    def __init__(self, torch: Any, index: int = 0) -> None:
        self._torch = torch
        self._device = torch.device("cuda", index)
        self._local = threading.local()

    def run(self, program: Program, arrays: Sequence[Array]) -> list[Array]:
        """See `Transfer`."""
        torch = self._torch
        stream = self._stream()
        with torch.inference_mode(), torch.cuda.stream(stream):
            # Pinned memory lets the copy go on while the host prepares the next; it is torch's cache that keeps it, and
            # that gives it out again only when the stream is done with it.
            inputs = [
                to_tensor(torch, a).pin_memory().to(self._device, non_blocking=True) for a in arrays
            ]
            landed = [self._to_host(t) for t in program(*inputs)]
        # The only wait: until then the outputs are being copied.
        stream.synchronize()
        return [to_array(torch, t) for t in landed]

    def _to_host(self, tensor: Any) -> Any:
        host = self._torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        return host

    def _stream(self) -> Any:
        stream = getattr(self._local, "stream", None)
        if stream is None:
            stream = self._local.stream = self._torch.cuda.Stream(self._device)
        return stream


def to_tensor(torch: Any, array: Array) -> Any:
    """View an array as a tensor on the CPU; copies what torch could not view."""
    if not array.flags.c_contiguous or not array.flags.writeable:
        array = np.array(array)
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(torch: Any, tensor: Any) -> Array:
    """View a tensor on the CPU as an array."""
    array: Array
    if tensor.dtype == torch.bfloat16:
        array = tensor.contiguous().view(torch.uint16).numpy().view(BFLOAT16)
    else:
        array = tensor.numpy()
    return array
