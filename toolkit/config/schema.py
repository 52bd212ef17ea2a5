"""The settings of one run, typed. Units stand in the comments; defaults that users see stand in ``conf/``.

Plain dataclasses: Hydra's structured configs cannot be frozen (every override from the command line would be
refused), so they are read-only by convention.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from toolkit.cloud.settings import ModelArtsSettings, ObsSettings
from toolkit.learn.settings import DataSettings, ExportSettings, ModelSettings, TrainSettings
from toolkit.preprocess import Preprocess


@dataclass
class AppSettings:
    """What is deployed."""

    name: str = ""  # folder on the board: <root>/<name>
    labels: list[str] = field(default_factory=list)  # class names by id; empty: the data set's own


@dataclass
class AtcSettings:
    """The flags of ATC by name: text, number, true or false, or a list of them; ``None``: the flag is not given.

    What each is for stands in ``conf/atc/default.yaml``.
    """

    # What convert decides itself: setting one of these is refused, with what to set instead.
    model: Any = None
    framework: Any = None
    output: Any = None
    mode: Any = None
    om: Any = None
    json: Any = None
    singleop: Any = None

    # The chip. Filled in from the board, unless set.
    soc_version: Any = None
    core_type: Any = None
    aicore_num: Any = None
    virtual_type: Any = None
    target: Any = None
    ddk_version: Any = None
    device_id: Any = None

    # Inputs and outputs.
    weight: Any = None
    input_format: Any = None
    input_shape: Any = None
    input_shape_range: Any = None
    input_hint_shape: Any = None
    dynamic_batch_size: Any = None
    dynamic_image_size: Any = None
    dynamic_dims: Any = None
    insert_op_conf: Any = None
    input_fp16_nodes: Any = None
    out_nodes: Any = None
    output_type: Any = None
    is_input_adjust_hw_layout: Any = None
    is_output_adjust_hw_layout: Any = None
    op_name_map: Any = None
    enable_scope_fusion_passes: Any = None

    # Precision.
    precision_mode: Any = None
    precision_mode_v2: Any = None
    op_precision_mode: Any = None
    modify_mixlist: Any = None
    keep_dtype: Any = None
    customize_dtypes: Any = None
    allow_hf32: Any = None
    op_select_implmode: Any = None
    optypelist_for_implmode: Any = None
    is_weight_clip: Any = None
    deterministic: Any = None
    deterministic_level: Any = None

    # Smaller networks (int8: quantise=amct).
    compression_optimize_conf: Any = None
    cal_conf: Any = None
    compress_weight_conf: Any = None
    enable_compress_weight: Any = None
    enable_attr_compression: Any = None
    sparsity: Any = None
    quant_dumpable: Any = None
    external_weight: Any = None

    # Speed and memory.
    buffer_optimize: Any = None
    fusion_switch_file: Any = None
    optimization_switch: Any = None
    oo_level: Any = None
    disable_reuse_memory: Any = None
    enable_single_stream: Any = None
    enable_small_channel: Any = None
    ac_parallel_enable: Any = None
    tiling_schedule_optimize: Any = None
    atomic_clean_policy: Any = None
    jit_compile: Any = None
    shape_generalized_build_mode: Any = None
    static_model_ops_lower_limit: Any = None
    raw_ge_options: Any = None
    raw_ge_options_ignore_unsupported: Any = None

    # Tuning (tune=aoe).
    auto_tune_mode: Any = None
    mdl_bank_path: Any = None
    op_bank_path: Any = None

    # Several chips.
    cluster_config: Any = None
    hccl_sub_comm_config: Any = None

    # The machine that the om runs on, where it holds code for its CPU.
    host_env_os: Any = None
    host_env_cpu: Any = None
    build_config: Any = None

    # Looking for a cause.
    log: Any = None
    display_model_info: Any = None
    check_report: Any = None
    save_original_model: Any = None
    dump_mode: Any = None
    status_check: Any = None
    op_debug_level: Any = None
    op_debug_config: Any = None
    debug_dir: Any = None
    op_compiler_cache_mode: Any = None
    op_compiler_cache_dir: Any = None


@dataclass
class EnvironmentRange:
    """What makes CANN usable in a shell, for a range of its versions."""

    since: str | None = None  # first version it holds for; None = from the beginning
    before: str | None = None  # first version it no longer holds for
    variables: dict[str, str] = field(default_factory=dict)  # to export
    paths: dict[str, list[str]] = field(default_factory=dict)  # folders to put in front of PATH and the like
    lines: list[str] = field(default_factory=list)  # shell lines, in order, after those
    set_env: list[str] = field(default_factory=list)  # candidates: the first that exists is sourced


@dataclass
class CannSettings:
    """The CANN of a board."""

    version: str = ""  # the one on the board; it decides which environment is used; empty: of a build host, not known
    since: str | None = None  # first CANN that knows the board's chip; None = not known
    before: str | None = None  # first one that no longer does
    environments: list[EnvironmentRange] = field(default_factory=list)  # to run inference
    toolkits: list[EnvironmentRange] = field(default_factory=list)  # to run atc


@dataclass
class BoardSettings:
    """A board profile, and for a single board its address."""

    profile: str = ""
    product: str = ""
    soc_version: str = ""  # as atc's --soc_version takes it; empty: a machine without a chip, which is no board
    npu_name: str = ""  # as npu-smi's Name column prints it
    chips: int = 1  # devices that a program on the board sees
    run_mode: str = "RC"  # RC: the program runs on the chip's own CPU; EP: on a host with the chip as a card
    arch: str = "aarch64"
    memory_mb: int = 0  # MB per chip, as npu-smi prints it
    driver: str = ""  # a driver version of its generation, as npu-smi prints it
    groups: list[str] = field(default_factory=list)  # that a login must be in to open the device
    host: str | None = None
    port: int = 22
    user: str = ""
    key_file: str | None = None
    password: str | None = None  # a secret reference: never a value
    host_key: str | None = None  # pinned: "ssh-ed25519 AAAA…" or "SHA256:…"
    jump: str | None = None
    root: str = "~/HIAI_PROJECTS"
    interpreters: list[str] = field(default_factory=lambda: ["python3"])
    cann: CannSettings = field(default_factory=CannSettings)
    count: int = 1  # how many simulated boards
    faults: dict[str, Any] = field(default_factory=dict)  # of simulated boards
    python: str | None = None  # of simulated boards: an interpreter of this machine, name or path; None = this one


@dataclass
class ConvertSettings:
    """Where and how long ATC runs."""

    host: str = "auto"
    limit: float = 1800.0  # s
    cann_version: str | None = None  # of the machine that converts; None = what it says, simulated: the board's


@dataclass
class QuantiseSettings:
    """Whether the network is made int8 before it is converted."""

    kind: str = "none"  # none, amct
    pictures: int = 32  # to calibrate with
    config: str = ""  # AMCT's simplified configuration file
    limit: float = 3600.0  # s


@dataclass
class TuneSettings:
    """Whether variants of the network are tried on the chip before it is converted."""

    kind: str = "none"  # none, aoe
    jobs: list[int] = field(default_factory=lambda: [1, 2])  # 1 subgraphs, 2 operators
    limit: float = 36000.0  # s, each


@dataclass
class InferSettings:
    """What runs on the board."""

    pictures: str | None = None
    top_k: int = 5
    mode: str = "folder"
    device: int = 0
    warmup: int = 1
    limit: float = 600.0  # s


@dataclass
class GateSettings:
    """What a release must show before it may stay; None = not looked at."""

    max_difference: float | None = None  # of |logit - reference| / max(1, max |reference|)
    min_agreement: float | None = None  # 0..1: pictures whose best class is the reference's (ties are forgiven)
    min_cosine: float | None = None  # -1..1: of logits and reference, the worst picture
    min_accuracy: float | None = None  # 0..1: of labelled pictures
    max_accuracy_drop: float | None = None  # 0..1: below the release that is replaced
    max_p99_ms: float | None = None  # ms: execution of a picture; of fewer than 100 pictures: the slowest one
    max_p99_growth: float | None = None  # 0.2 = a fifth more than the release that is replaced
    max_memory_mb: float | None = None  # MB: the board program's largest memory
    max_memory_growth: float | None = None  # 0.2 = a fifth more than the release that is replaced
    max_temperature: float | None = None  # °C: of the chip after the run, as npu-smi says
    max_new_errors: int | None = None  # pictures that fail and did not with the release that is replaced


@dataclass
class VerifySettings(GateSettings):
    """When a board's answers are good enough for the switch."""

    max_difference: float | None = 0.05
    min_agreement: float | None = 1.0


@dataclass
class BenchSettings:
    """How much is measured."""

    count: int = 200  # executions
    warmup: int = 20  # executions before the first one that counts


@dataclass
class LimitSettings:
    """How long each wait for a board may take, in seconds."""

    connect: float = 10.0
    banner: float = 10.0
    auth: float = 15.0
    channel: float = 10.0
    silence: float = 30.0
    command: float = 600.0
    board: float = 1800.0


@dataclass
class SshSettings:
    """How boards are reached."""

    client: str = "fabric"
    deltas: str = "auto"
    config: str = "~/.ssh/config"
    known_hosts: list[str] = field(default_factory=list)
    limits: LimitSettings = field(default_factory=LimitSettings)


@dataclass
class RolloutSettings:
    """How a plan is applied to many boards."""

    name: str = "all_at_once"
    waves: list[Any] = field(default_factory=list)  # sizes: boards, or "10%"; the last one repeats; empty: all
    by: str | None = None  # a label: waves of its own for each of its values, one value after the other
    apart: str | None = None  # a label: two boards with the same value never in the same wave
    first: str | None = None  # a label: boards that have it come first
    order: str = "fixed"  # by name, or "shuffled" by seed
    seed: int = 0
    concurrency: int = 16
    pause: Any = 0  # s between waves, or "ask": a person's yes
    failure_budget: Any = None  # boards, or "5%" of all: more failures end the rollout; None = no limit
    count_unreachable: bool = True
    on_failure: str = "halt"  # or revert_wave, revert_all
    gate: GateSettings = field(default_factory=GateSettings)  # over the boards of a wave, after it
    take_over: bool = False  # boards that run something which this program never put there
    break_lock: bool = False  # boards that somebody else is deploying to
    retry_first: float = 5.0  # s before --until-done tries boards again that did not answer; doubles each time
    retry_most: float = 300.0  # s
    confirm_within: float = 60.0  # s
    keep_releases: int = 3


@dataclass
class EngineSettings:
    """What carries the boards' jobs out."""

    name: str = "threads"
    workers: int = 16
    threads: int = 8  # boards at once per worker of Dask
    address: str | None = None  # of Dask's scheduler; None = a cluster on this machine


@dataclass
class StoreSettings:
    """Where artefacts live."""

    kind: str = "local"
    url: str | None = None  # of a store that machines share
    access_key: str | None = None  # a secret reference: never a value
    secret_key: str | None = None  # a secret reference: never a value
    endpoint: str | None = None  # of S3 and OBS
    key_file: str | None = None  # for SFTP
    password: str | None = None  # for SFTP; a secret reference: never a value
    host_key: str | None = None  # for SFTP; pinned
    obs: ObsSettings = field(default_factory=ObsSettings)  # of cloud training and obs:// paths


@dataclass
class SignSettings:
    """Who vouches for a release."""

    kind: str = "none"
    key: str | None = None  # a private ed25519 key
    passphrase: str | None = None  # a secret reference: never a value


@dataclass
class Config:
    """Everything."""

    app: AppSettings = field(default_factory=AppSettings)
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    preprocess: Preprocess = field(default_factory=Preprocess)
    train: TrainSettings = field(default_factory=TrainSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    convert: ConvertSettings = field(default_factory=ConvertSettings)
    quantise: QuantiseSettings = field(default_factory=QuantiseSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)
    atc: AtcSettings = field(default_factory=AtcSettings)
    infer: InferSettings = field(default_factory=InferSettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    bench: BenchSettings = field(default_factory=BenchSettings)
    ssh: SshSettings = field(default_factory=SshSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    sign: SignSettings = field(default_factory=SignSettings)
    modelarts: ModelArtsSettings = field(default_factory=ModelArtsSettings)
    board: BoardSettings | None = None
    simulate: bool = False
    inventory: str | None = None
    hosts: str | None = None
    release: str | None = None
    replace: bool = False
    run: str | None = None
    plan: str | None = None
    out: str | None = None
    lock: str | None = None
