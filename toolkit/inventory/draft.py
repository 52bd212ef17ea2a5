"""What a reader finds out about one machine before anything is checked; layers of it that add up."""

from __future__ import annotations

from dataclasses import dataclass, field

from yaml.nodes import MappingNode, Node, SequenceNode

from toolkit.inventory.board import CONNECTION
from toolkit.inventory.keys import is_of_the_call, known_key, near_key
from toolkit.inventory.nodes import Problems, is_null, items, mapping, near, sequence, text_of

FIELDS = ("profile", *CONNECTION)
LAYER_KEYS = (*FIELDS, "labels", "overrides")
_MAX_DEPTH = 32


@dataclass
class Layer:
    """What holds for some boards: a file's defaults, a group, a label's overrides, or a board's own entry.

    All values are nodes, which know where they stand. A label is its value and the node that gives it.
    """

    fields: dict[str, Node] = field(default_factory=dict)
    labels: dict[str, tuple[str, Node]] = field(default_factory=dict)
    overrides: dict[str, Node] = field(default_factory=dict)

    def add(self, stronger: Layer) -> None:
        """Put ``stronger`` on top."""
        self.fields.update(stronger.fields)
        self.labels.update(stronger.labels)
        self.overrides.update(stronger.overrides)


@dataclass
class Draft:
    """A machine, unchecked. ``node`` is where it begins.

    ``address`` tells two machines apart where ``host`` does not, as with the entries of an ssh_config.
    """

    name: str
    node: Node
    kind: str = "board"
    layer: Layer = field(default_factory=Layer)
    address: str = ""

    @property
    def label_texts(self) -> dict[str, str]:
        """The labels without their nodes."""
        return {name: value for name, (value, _) in self.layer.labels.items()}


def read_layer(
    found: dict[str, tuple[Node, Node]], problems: Problems, what: str, also: tuple[str, ...] = ()
) -> Layer:
    """Return the layer that ``found`` describes; a key it cannot have (``also`` adds some) is a problem."""
    layer = Layer()
    for name, (key, value) in found.items():
        if name in FIELDS:
            if isinstance(value, MappingNode):
                problems.at(value, f"{name} must be a single value")
            elif not is_null(value):
                layer.fields[name] = value
        elif name == "labels":
            layer.labels = read_labels(value, problems)
        elif name == "overrides":
            read_overrides(value, layer, problems)
        elif name not in also:
            if known_key(name):
                problems.at(key, f"{name} is a setting: write it under overrides:")
            else:
                problems.at(key, f"{what} has no {name}{near(name, [*LAYER_KEYS, *also])}")
    return layer


def read_labels(node: Node, problems: Problems) -> dict[str, tuple[str, Node]]:
    """Return labels from ``{site: berlin}``, or from ``[camera, indoors]``, which have no value."""
    if not isinstance(node, MappingNode):
        return {text_of(item): ("", item) for item in sequence(node, problems, "labels")}
    labels: dict[str, tuple[str, Node]] = {}
    for name, (key, value) in mapping(node, problems, "labels").items():
        if isinstance(value, MappingNode | SequenceNode):
            problems.at(value, f"label {name}: the value must be a text")
        labels[name] = text_of(value), key
    return labels


def read_overrides(node: Node, layer: Layer, problems: Problems) -> None:
    """Put overrides, dotted or nested, into ``layer`` by dotted key; ``board.host`` becomes its field."""
    flat: dict[str, tuple[Node, Node]] = {}
    _flatten(node, "", flat, problems, 0)
    for dotted, (key, value) in flat.items():
        fieldname = dotted.removeprefix("board.")
        if dotted.startswith("board.") and fieldname in FIELDS:
            layer.fields.setdefault(fieldname, value)
        elif is_of_the_call(dotted):
            problems.at(key, f"{dotted} holds for all boards of a call, not for one: type it on the command line")
        elif known_key(dotted):
            layer.overrides[dotted] = value
        else:
            problems.at(key, f"{dotted}: there is no such setting{near_key(dotted)}")


def _flatten(
    node: Node, prefix: str, flat: dict[str, tuple[Node, Node]], problems: Problems, depth: int
) -> None:
    if depth > _MAX_DEPTH:
        problems.at(node, "overrides are nested too deeply; does an anchor refer to itself?")
        return
    for key, value in items(node, problems, prefix[:-1] or "overrides"):
        dotted = prefix + text_of(key)
        if isinstance(value, MappingNode) and value.value:
            _flatten(value, dotted + ".", flat, problems, depth + 1)
        elif dotted in flat:
            problems.at(key, f"{dotted} is given twice")
        else:
            flat[dotted] = key, value
