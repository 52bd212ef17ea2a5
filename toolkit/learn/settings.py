"""What can be set about data, network, training and export.

Plain dataclasses of plain types: the configuration's schema takes them in as they are, and the worker process
gets them as JSON. Members of the enumerations are named exactly as users type them.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar, cast


class DataKind(str, Enum):
    """Where the pictures come from."""

    digits = "digits"
    """scikit-learn's 1,797 handwritten digits, enlarged to 32×32 RGB; needs no network"""
    cifar10 = "cifar10"
    """the real CIFAR-10, from a folder of the user's or downloaded"""


CIFAR10_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
DIGIT_NAMES = tuple(str(digit) for digit in range(10))


class Decay(str, Enum):
    """How the learning rate falls after the warm-up."""

    poly = "poly"
    """ModelZoo's rule: ``lr_max * (1 - t)**2``; ``lr_end`` is not used"""
    cosine = "cosine"
    """half a cosine from ``lr_max`` to ``lr_end``"""
    linear = "linear"
    """a straight line from ``lr_max`` to ``lr_end``"""
    constant = "constant"
    """``lr_max`` throughout"""


class AmpLevel(str, Enum):
    """MindSpore's level of mixed precision."""

    O0 = "O0"
    O1 = "O1"
    O2 = "O2"
    O3 = "O3"


class Device(str, Enum):
    """What MindSpore computes on."""

    CPU = "CPU"
    GPU = "GPU"
    Ascend = "Ascend"


class Split(str, Enum):
    """Which pictures are trained with."""

    train = "train"
    """the training pictures; the held-out ones are for evaluation alone"""
    all = "all"
    """the test pictures, too, as the tutorial did (its 1875 steps an epoch tell); accuracies then say nothing"""


class Where(str, Enum):
    """Where the training runs."""

    local = "local"
    ssh = "ssh"
    modelarts = "modelarts"


class Final(str, Enum):
    """Which epoch's weights are the result."""

    last = "last"
    best = "best"
    """the highest held-out accuracy, the earliest of equals"""


class Format(str, Enum):
    """The exported file's format."""

    auto = "auto"
    """air where MindSpore computes on Ascend, onnx elsewhere"""
    air = "air"
    onnx = "onnx"
    mindir = "mindir"


@dataclass
class DataSettings:
    """The dataset."""

    name: str = "digits"
    """name for people, in reports and the lock file"""
    kind: DataKind = DataKind.digits
    root: str = ""
    """folder of the extracted dataset (cifar-10-batches-bin, or its parent); empty: prepare or download it"""
    seed: int = 0
    """seed of the split of the digits, and of the choice of samples"""
    test_fraction: float | None = 0.2
    """share of the pictures held out, 0..1; of the digits that come along: other data bring their own split"""
    samples: int = 20
    """held-out pictures that go into the release, where infer.pictures names none"""
    url: str = ""
    """where the archive is downloaded from, http or https"""
    archive: str = ""
    """the archive's file name"""
    size: int = 0
    """the archive's size in bytes; 0: not checked"""
    md5: str = ""
    """the archive's MD5 in hex, as its publisher gives it; empty: not checked"""
    sha256: str = ""
    """the archive's SHA-256 in hex; empty: not checked"""
    timeout: float = 30.0
    """seconds of silence after which a download is cut and taken up again"""
    attempts: int = 5
    """how many times in a row a download may get nowhere"""


def class_names(settings: DataSettings) -> tuple[str, ...]:
    """Return the names of the classes in the order of their labels. Pure: reads no file."""
    return DIGIT_NAMES if settings.kind is DataKind.digits else CIFAR10_NAMES


@dataclass
class ModelSettings:
    """The network. In the configuration the key of ``from_`` is ``from``."""

    name: str = "resnet8"
    """a network of the catalogue: resnet8, resnet18, resnet50"""
    classes: int = 10
    """how many classes it tells apart"""
    from_: str = ""
    """file of the user's own to start from instead of training: .ckpt, .onnx, .air, .mindir or .om"""


@dataclass
class RemoteSettings:
    """The machine that trains with ``train.where=ssh``. Nothing of this decides the result."""

    host: str = ""
    """a host of the inventory"""
    python: str = "python3"
    """its interpreter that has MindSpore"""
    activate: str = ""
    """script that it sources first, such as /usr/local/Ascend/ascend-toolkit/set_env.sh; empty: what CANN's
    toolkit of the host's profile needs"""
    attempts: int = 20
    """how often in a row a lost connection is taken up again; the training goes on meanwhile"""
    cancel: bool = False
    """end the training that runs there instead of following it"""


@dataclass
class TrainSettings:
    """The training recipe."""

    epochs: int = 12
    """passes over the training pictures; 0: the seeded initial weights, no dataset needed"""
    batch_size: int = 32
    """pictures a step"""
    lr_init: float = 0.01
    """learning rate at the first step of the warm-up"""
    lr_max: float = 0.05
    """learning rate after the warm-up"""
    lr_end: float = 0.0
    """learning rate at the end (cosine and linear)"""
    warmup_epochs: int = 1
    """epochs of the linear warm-up"""
    decay: Decay = Decay.cosine
    momentum: float = 0.9
    weight_decay: float = 1e-4
    """not applied to biases and batch norms"""
    loss_scale: float = 1.0
    """fixed factor on the loss, divided out of the gradients again; keeps half precision from underflowing"""
    amp_level: AmpLevel = AmpLevel.O0
    """mixed precision on Ascend; CPU and GPU always compute in float32 (O0)"""
    seed: int = 1
    """seed of the initial weights, the order of the pictures, crop and flip"""
    device_target: Device = Device.CPU
    threads: int = 0
    """threads MindSpore computes with, 0: one a core. Another number gives other (equally good) weights"""
    workers: int = 1
    """processes that train together, data-parallel, each with a batch and (on Ascend) a chip of its own;
    started by MindSpore's msrun. Another number gives other weights"""
    loaders: int = 1
    """parallel threads that prepare pictures; at most the machine's cores are used"""
    onednn_max_isa: str = "AVX2"
    """instruction set oneDNN may use, set unless ONEDNN_MAX_CPU_ISA is: above AVX2 it falls back to its
    reference convolution, 40 to 90 times slower; empty: leave it alone"""
    split: Split = Split.train
    crop: int = 0
    """random crop: pixels of zero padding on every side before a crop to the stored size; 0: no crop"""
    flip: bool = False
    """mirror every second picture, at random"""
    evaluate_every: int = 1
    """epochs between evaluations on the held-out pictures; after the last epoch always; 0: only then"""
    patience: int | None = None
    """early stop: so many epochs without a better held-out accuracy; null: never"""
    keep_checkpoints: int = 2
    """epoch checkpoints that are kept, with the optimizer's state (besides the best)"""
    final: Final = Final.last
    where: Where = Where.local
    remote: RemoteSettings = field(default_factory=RemoteSettings)


@dataclass
class ExportSettings:
    """The exported file."""

    format: Format = Format.auto
    batch_size: int = 1
    """pictures the exported network takes at once"""
    input_name: str = "x"
    """name of the input in ONNX"""
    output_name: str = "logits"
    """name of the output in ONNX"""
    tolerance: float = 1e-3
    """largest allowed difference between MindSpore's logits and those of the exported ONNX, absolute"""


T = TypeVar("T")


def to_json(settings: Any) -> dict[str, Any]:
    """Return a plain dataclass as a dict that ``json`` can write: enumerations by value."""

    def plain(value: Any) -> Any:
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    return {str(key): plain(value) for key, value in dataclasses.asdict(settings).items()}


def from_json(kind: type[T], values: Mapping[str, Any]) -> T:
    """Undo :func:`to_json`. Unknown keys raise TypeError, unknown members ValueError."""
    given = dict(values)
    hints = typing.get_type_hints(kind)
    for key, value in given.items():
        hint = hints.get(key)
        if isinstance(hint, type) and issubclass(hint, Enum):
            given[key] = hint(value)
        elif dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            given[key] = from_json(cast("type[Any]", hint), value)
        elif isinstance(value, list) and "tuple" in str(hint):
            given[key] = tuple(value)
    return kind(**given)
