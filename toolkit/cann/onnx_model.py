"""What an ONNX file takes and gives, and its answers: the reference that boards are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import InputError


@dataclass(frozen=True)
class Port:
    """An input or output: ``shape`` has -1 where the model leaves a dimension open."""

    name: str
    shape: tuple[int, ...]


class Reference:
    """An ONNX model, executed in float32 by ONNX Runtime on this machine."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises its own classes, without a common base
            first = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: ONNX Runtime cannot load it: {first}") from error
        self.input = _port(self._session.get_inputs()[0])
        self.outputs = tuple(_port(item) for item in self._session.get_outputs())

    def logits(self, pictures: Iterable[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the first output, float32 [classes], for each picture, float32 of the input's shape without batch."""
        batch = max(1, self.input.shape[0])
        for picture in pictures:
            feed = np.repeat(picture[None], batch, axis=0)
            yield self._session.run(None, {self.input.name: feed})[0][0].astype(np.float32).reshape(-1)


def _port(item: Any) -> Port:
    return Port(item.name, tuple(dim if isinstance(dim, int) else -1 for dim in item.shape))
