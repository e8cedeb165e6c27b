"""Functions that are compiled where that pays: on CUDA, where every step on its own would cost a launch."""

import logging
from collections.abc import Callable
from typing import Generic, ParamSpec

import torch
from torch import Tensor

log = logging.getLogger(__name__)

P = ParamSpec("P")
Tensors = tuple[Tensor, ...]

_RELATIVE, _ABSOLUTE = 1e-12, 1e-300
"""How far the compiled function may be from the other where numbers are float64: sums in another order."""


class Compiled(Generic[P]):
    """A function to tensors that `torch.compile` makes a few kernels of where its first argument lies on `device`. (No
    row and a single one would be compiled apart, and are not worth it.)

    Elsewhere `otherwise` runs, which computes the same step by step. It also runs for good as soon as something can't
    be compiled (there is no C compiler, say), and where the first compiled result isn't the same. (Other types and
    widths are compiled anew, and not compared again.)
    """

    def __init__(
        self,
        function: Callable[P, Tensors],
        otherwise: Callable[P, Tensors],
        device: str = "cuda",
        backend: str = "inductor",
    ) -> None:
        self.function, self.otherwise, self._device, self._backend = function, otherwise, device, backend
        self._compiled: Callable[P, Tensors] | None = None
        self._refused = False

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> Tensors:
        """The result, on the device of the first argument."""
        first = arguments[0]
        if self._refused or not isinstance(first, Tensor) or first.device.type != self._device or len(first) < 2:
            return self.otherwise(*arguments, **named)
        if self._compiled is None:
            return self._first_call(*arguments, **named)
        try:
            return self._compiled(*arguments, **named)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - as in the first call: another type of logits is compiled anew
            return self._refuse(_first_line(error), *arguments, **named)

    @property
    def is_compiled(self) -> bool:
        """Whether the compiled function runs. It is compiled by the first call."""
        return self._compiled is not None

    def _first_call(self, *arguments: P.args, **named: P.kwargs) -> Tensors:
        """Compile, and hold the result against the other way's."""
        expected = self.otherwise(*arguments, **named)
        try:
            # Dynamic: another number of rows is not compiled again.
            compiled = torch.compile(self.function, dynamic=True, fullgraph=True, backend=self._backend)
            found = compiled(*arguments, **named)
            if all(_same(*pair) for pair in zip(found, expected, strict=True)):
                self._compiled = compiled
                return expected
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - what a compiler raises has no common type, and the other way is as good
            return self._refuse(_first_line(error), *arguments, **named)
        return self._refuse("its results differ", *arguments, **named)

    def _refuse(self, problem: str, *arguments: P.args, **named: P.kwargs) -> Tensors:
        """Do without the compiled function from here on."""
        self._refused, self._compiled = True, None
        log.warning("%s is not compiled here and slower: %s", self.function.__name__, problem)
        return self.otherwise(*arguments, **named)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _same(found: Tensor, expected: Tensor) -> bool:
    """Equal; float64 numbers up to rounding."""
    if found.dtype != torch.float64:
        return torch.equal(found.nan_to_num(), expected.nan_to_num())
    return torch.allclose(found, expected, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
