"""Inventories: our own form, Ansible's, ssh_config's; every mistake named with its line; selecting boards."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pickle
import stat
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit import paths
from toolkit.config.store import wrong_value
from toolkit.errors import ConfigError, UsageError
from toolkit.inventory import Board, load, select

NO_SECRET = "password: a secret does not stand in an inventory; write ${secret:env,NAME}, or file, or keyring"
PROFILES = ["200dk", "200i_dk_a2", "300i_pro", "atlas500", "host"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return name


def program(name: str, body: str) -> str:
    write(name, f"#!{sys.executable}\n{body}")
    Path(name).chmod(0o755)
    return f"./{name}"


def boards(text: str, default: str = "200dk", name: str = "fleet.yaml") -> dict[str, Board]:
    return {board.name: board for board in load(write(name, text), [], PROFILES, default)}


def problems(text: str, default: str = "200dk", name: str = "fleet.yaml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        boards(text, default, name)
    return list(caught.value.problems)


# ---------------------------------------------------------------------------- our own form


def test_every_field_is_read() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    found = boards(
        f"""
        boards:
          cam-01:
            profile: 300i_pro
            host: 192.0.2.7
            port: 2222
            user: HwHiAiUser
            key_file: ~/.ssh/id
            password: "${{secret:env, BOARD_PASSWORD}}"
            host_key: {key}
            jump: ops@gate.example.com:2200,inner
            labels: {{site: berlin, rack: 07, canary: }}
            overrides: {{infer.top_k: 3, preprocess: {{mean: [0.5, 1e-3, 1]}}}}
        """
    )
    assert found["cam-01"] == Board(
        name="cam-01",
        profile="300i_pro",
        host="192.0.2.7",
        port=2222,
        user="HwHiAiUser",
        key_file="~/.ssh/id",
        password="env:BOARD_PASSWORD",
        host_key=key,
        jump="ops@gate.example.com:2200,inner",
        labels={"site": "berlin", "rack": "07", "canary": ""},
        overrides={"infer.top_k": 3, "preprocess.mean": [0.5, 0.001, 1]},
    )
    assert found["cam-01"].place == "fleet.yaml:3"


def test_what_is_left_out_is_empty_and_the_profile_comes_from_the_default() -> None:
    assert boards("boards: {a: }")["a"] == Board(name="a", profile="200dk")
    assert boards("boards: [{name: a, profile: atlas500}]")["a"].profile == "atlas500"
    assert boards("- {name: a}")["a"] == Board(name="a", profile="200dk")


def test_settings_are_what_the_entry_sets() -> None:
    overrides = "{infer.top_k: 3, board.root: /x, board.user: u}"
    board = boards(f"boards: {{a: {{host: h, port: 2222, overrides: {overrides}}}}}")["a"]
    assert board.settings() == {
        "infer.top_k": 3,
        "board.root": "/x",
        "board.host": "h",
        "board.port": 2222,
        "board.user": "u",
    }
    assert board.user == "u"
    assert "board.user" not in board.overrides


def test_layers_add_up_in_order() -> None:
    found = boards(
        """
        defaults:
          {user: d, labels: {site: d, kind_of: d}, overrides: {infer: {top_k: 1, warmup: 1}, infer.limit: 1}}
        groups:
          child: {boards: [a], user: child, labels: {site: child}, overrides: {infer.top_k: 2}}
          parent: {children: [child], user: parent, labels: {site: parent},
                   overrides: {infer.top_k: 9, infer.warmup: 2}}
          other: [b]
        overrides:
          "@child": {infer.warmup: 3, infer.device: 1}
          site=child: {infer.device: 2}
          b,!a: {board.user: chosen}
        boards:
          a: {labels: {kind_of: own}, overrides: {infer.device: 3}}
          b: {groups: [parent]}
          c:
        """
    )
    a, b, c = found["a"], found["b"], found["c"]
    assert a.user == "child"
    assert a.labels == {"parent": "", "child": "", "site": "child", "kind_of": "own"}
    assert a.overrides == {"infer.top_k": 2, "infer.warmup": 3, "infer.limit": 1, "infer.device": 3}
    assert b.user == "chosen"
    assert b.labels == {"parent": "", "other": "", "site": "parent", "kind_of": "d"}
    assert b.overrides == {"infer.top_k": 9, "infer.warmup": 2, "infer.limit": 1}
    assert c.user == "d"
    assert c.labels == {"site": "d", "kind_of": "d"}


def test_texts_stay_texts() -> None:
    board = boards(
        "boards: {a: {overrides: {board.cann.version: 5.10, infer.pictures: 2024-01-02, infer.top_k: 12}}}"
    )["a"]
    assert board.overrides == {
        "board.cann.version": "5.10",
        "infer.pictures": "2024-01-02",
        "infer.top_k": 12,
    }


def test_faults_are_free_keys() -> None:
    board = boards("boards: {a: {overrides: {board.faults: {latency_ms: 5}, board.faults.health: Alarm}}}")[
        "a"
    ]
    assert board.overrides == {"board.faults.latency_ms": 5, "board.faults.health": "Alarm"}


def test_anchors_and_merge_keys() -> None:
    found = boards(
        """
        boards:
          a: &base {user: u, labels: &labels {site: x}, port: 23}
          b: {<<: *base, port: 24}
          c: {<<: [{user: first}, *base], labels: {<<: *labels, ring: 1}}
        """
    )
    assert (found["b"].user, found["b"].port) == ("u", 24)
    assert (found["c"].user, found["c"].port, found["c"].labels) == ("first", 23, {"site": "x", "ring": "1"})


def test_a_host_is_no_board_and_defaults_do_not_reach_it() -> None:
    found = boards(
        """
        defaults: {user: d}
        boards: {a: {host: 192.0.2.1}}
        hosts: {builder: {profile: 300i_pro, host: 192.0.2.1, labels: [fast]}}
        """
    )
    builder = found["builder"]
    assert (builder.kind, builder.user, builder.profile) == ("host", "", "300i_pro")
    assert [board.kind for board in found.values()] == ["board", "host"]


def test_a_products_number_finds_its_profile() -> None:
    assert boards("boards: {a: {profile: 500}}")["a"].profile == "atlas500"


def test_a_machine_without_a_chip_needs_no_profile_and_is_no_board() -> None:
    found = boards("defaults: {profile: 200dk}\nboards: [{name: a}]\nhosts: {builder: {host: 192.0.2.1}}")
    assert (found["a"].profile, found["builder"].profile) == ("200dk", "host")
    assert problems("boards: {a: {profile: host}}") == [
        "fleet.yaml:1: a: a machine of profile host has no chip, so it is no board: write it under hosts:"
    ]


def test_a_board_is_frozen_hashable_and_can_be_pickled() -> None:
    board = boards("boards: {a: {labels: [x], overrides: {infer.top_k: 1}}}")["a"]
    assert pickle.loads(pickle.dumps(board)) == board
    assert len({board, board}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        board.name = "b"  # type: ignore[misc]


# ---------------------------------------------------------------------------- all mistakes at once


def test_every_mistake_is_listed_with_its_line() -> None:
    assert problems(
        """\
boards:
  cam-01: {host: 192.0.2.1, prot: 22, profile: 200kd}
  cam-02:
    host: 192.0.2.1
    port: 99999
    overrides: {infer.topk: 3, train: 4, infer: {warmup: 1}}
  cam-02: {password: hunter2, labels: {a b: c, profile: x, ok: "semi;colon"}}
  ../x: {host: -oProxyCommand=x, user: "a b", jump: "a b", host_key: abc}
  CAM-01: {host: user@h, port: 22x, infer.top_k: 3, groups: [nobody]}
groups:
  g: {boards: [cam-1, "door-*"], children: [h], port: 0}
overrides:
  "@nolabel": {infer.top_k: 1}
defualts: {}
"""
    ) == [
        "fleet.yaml:2: a board has no prot; did you mean port?",
        "fleet.yaml:2: there is no profile 200kd; did you mean 200dk?",
        "fleet.yaml:4: cam-02 has the address of cam-01 (line 2): 192.0.2.1:22",
        "fleet.yaml:5: port: 99999 is not a port number, 1 … 65535",
        "fleet.yaml:6: infer.topk: there is no such setting; did you mean infer.top_k?",
        "fleet.yaml:6: train: there is no such setting; it is a group, of train.epochs and others",
        f"fleet.yaml:7: {NO_SECRET}",
        "fleet.yaml:7: label 'a b': letters, digits and _ - . /, first a letter, digit or _",
        "fleet.yaml:7: label profile: this name is taken, hosts=profile=… has a meaning already",
        "fleet.yaml:7: label ok: 'semi;colon': a value has letters, digits, spaces and . _ - / : +",
        "fleet.yaml:7: cam-02: line 3 has this name already",
        "fleet.yaml:8: '../x' cannot be a folder's name: letters, digits and . _ -, first a letter or digit",
        "fleet.yaml:8: host: '-oProxyCommand=x' is not a host name or IP address",
        "fleet.yaml:8: user: 'a b' is not a user's name",
        "fleet.yaml:8: host_key: 'abc' is not a key: write 'ssh-ed25519 AAAA…' or 'SHA256:…'",
        "fleet.yaml:8: jump: 'a b' is not [user@]host[:port], several separated by commas, or none",
        "fleet.yaml:9: infer.top_k is a setting: write it under overrides:",
        "fleet.yaml:9: there is no group nobody",
        "fleet.yaml:9: host: 'user@h' is not a host name or IP address: user and port have keys of their own",
        "fleet.yaml:9: port: 22x is not a port number, 1 … 65535",
        "fleet.yaml:9: CAM-01: line 2 is named cam-01, the same but for case",
        "fleet.yaml:11: there is no group h",
        "fleet.yaml:11: port: 0 is not a port number, 1 … 65535",
        "fleet.yaml:11: group g: there is no board cam-1; did you mean cam-01?",
        "fleet.yaml:11: group g: there is no board door-*",
        "fleet.yaml:13: overrides: @nolabel selects no board; write a name, a glob, @label or label=value",
        "fleet.yaml:14: an inventory has no section defualts; did you mean defaults?",
    ]


def test_a_secret_is_not_shown() -> None:
    assert not any("hunter2" in line for line in problems("boards: {a: {password: hunter2, port: x}}"))


def test_a_wrong_default_is_told_once_however_many_boards_have_it() -> None:
    listed = "".join(f"  b{number}:\n" for number in range(20))
    assert problems(f"defaults: {{port: 0}}\nboards:\n{listed}") == [
        "fleet.yaml:1: port: 0 is not a port number, 1 … 65535"
    ]


def test_no_profile_at_all() -> None:
    assert problems("boards: {a: }", default="") == [
        "fleet.yaml:1: a has no profile: write profile: here or in defaults, or give +board=…"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("boards: {a: {user: [x]}}", "user: '' is not a user's name"),
        ("boards: {a: {host: {x: y}}}", "host must be a single value"),
        ("boards: 3", "boards must be a mapping, `key: value`"),
        ("boards: [{host: h}]", "a board has no name"),
        ("boards: {a: 3}", "a board's entry must be a mapping, `key: value`"),
        ("boards: {a: {port: 1, port: 2}}", "port is given twice, first in line 1"),
        ("boards: {a: {overrides: {infer.top_k: 1, infer: {top_k: 2}}}}", "infer.top_k is given twice"),
        ("boards: {a: {overrides: &o {infer: *o}}}", "overrides are nested too deeply"),
        ("boards: {a: {overrides: {preprocess.mean: &m [*m]}}}", "preprocess.mean is nested too deeply"),
        ("boards: {a: }\ngroups: {g: {children: [h]}, h: {children: [g]}}", "group g is its own descendant"),
        ("boards: {a: {host: 'x:22'}}", "host: x:22: the port has a key of its own, port:"),
        ("boards: {a: {labels: {x: {y: z}}}}", "label x: the value must be a text"),
        ("boards: {a.: }", "'a.' cannot be a folder's name"),
        ("boards: {'a/b': }", "'a/b' cannot be a folder's name"),
        ("boards: {'': }", "'' cannot be a folder's name"),
    ],
)  # fmt: skip
def test_one_mistake(text: str, expected: str) -> None:
    assert any(f": {expected}" in line for line in problems(text)), problems(text)


@pytest.mark.parametrize(
    "text", ["boards: {a: [}", "boards:\n\ta: 1", "a: *nobody", "\x00", "a: 1\n--- \nb: 2"]
)
def test_what_is_not_yaml_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^fleet\.yaml") as caught:
        boards(text)
    assert "\n" not in str(caught.value)


def test_the_same_private_address_behind_two_jump_hosts_is_two_boards() -> None:
    a, b = "a: {host: 192.168.1.2, jump: x}", "b: {host: 192.168.1.2, jump: y}"
    text = f"boards: {{{a}, {b}, c: {{host: 192.168.1.2, port: 23}}}}"
    assert len(boards(text)) == 3
    assert (
        "b has the address of a (line 1): 192.168.1.2:22" in problems(text.replace("jump: y", "jump: x"))[0]
    )


def test_addresses_differ_in_more_than_case_and_the_default_port() -> None:
    assert len(problems("boards: {a: {host: Cam.example.com}, b: {host: cam.EXAMPLE.com, port: 22}}")) == 1


def test_the_profiles_default_address_counts_too() -> None:
    text = "boards:\n  a:\n  b: {port: 23}\n  c: {host: 192.168.1.2}\n  d: {jump: x}\n  e: {profile: 300i_pro}\n  f:\n"
    write("fleet.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load("fleet.yaml", [], PROFILES, "200dk", addresses={"200dk": "192.168.1.2"})
    assert list(caught.value.problems) == [
        "fleet.yaml:4: c has the address of a (line 2): 192.168.1.2:22",
        "fleet.yaml:7: f has the address of a (line 2): 192.168.1.2:22, the default of profile 200dk",
    ]
    assert len(load("fleet.yaml", [], PROFILES, "200dk")) == 6, "simulated boards have addresses of their own"


def test_what_holds_for_all_boards_of_a_call_is_no_boards_own() -> None:
    """Whatever the form, wherever it stands; what each board may have of its own stays."""
    everywhere = """
        defaults: {overrides: {engine.workers: 3}}
        groups: {g: {boards: [a], overrides: {store: {kind: shared}}}}
        overrides: {a: {rollout.waves: [1], rollout: {keep_releases: 2}}}
        boards: {a: {overrides: {simulate: true, rollout.break_lock: true, rollout: canary, sign.kind: none}}}
        """.replace(" " * 8, "")
    held = "holds for all boards of a call, not for one: type it on the command line"
    keys = {2: ["engine.workers"], 3: ["store.kind"], 4: ["rollout.waves"], 5: ["simulate", "rollout", "sign.kind"]}
    assert problems(everywhere) == [f"fleet.yaml:{n}: {key} {held}" for n, found in keys.items() for key in found]
    ini = "[all]\nb deploy_overrides='{lock: x, infer.top_k: 2}'\n"
    assert problems(ini, name="hosts.ini") == [f"hosts.ini:2: lock {held}"]


def test_every_value_of_a_wrong_type_is_listed() -> None:
    write(
        "fleet.yaml",
        """
        defaults: {overrides: {infer.top_k: many, model.from: 3}}
        boards:
          a: {overrides: {infer: {top_k: [1], warmup: 2.5}, typo: 1}}
          b: {overrides: {preprocess.mean: 7, board.cann: {version: 5.10}, simulat: true}}
          c: {overrides: {infer.top_k: null, export.format: onxx, rollout.take_over: perhaps, infer.warmup: "3"}}
        """,
    )
    with pytest.raises(ConfigError) as caught:
        load("fleet.yaml", [], PROFILES, "200dk", wrong=wrong_value)
    named = [":".join(problem.split(":")[:3]).replace("fleet.yaml:", "") for problem in caught.value.problems]
    assert named == [
        "2: infer.top_k",
        "4: typo",
        "4: infer.top_k",
        "4: infer.warmup",
        "5: simulat",
        "5: preprocess.mean",
        "6: infer.top_k",
        "6: export.format",
        "6: rollout.take_over",
    ], caught.value.problems


# ---------------------------------------------------------------------------- finding the file


def test_a_name_is_looked_for_in_the_folders_in_order(here: Path) -> None:
    write("one/fleet.yml", "boards: {first: }")
    write("two/fleet.yaml", "boards: {second: }")
    write("two/lab.yaml", "boards: {lab: }")
    folders = [here / "missing", here / "one", here / "two"]
    assert [board.name for board in load("fleet", folders, PROFILES, "200dk")] == ["first"]
    assert load("lab", folders, PROFILES, "200dk")[0].place == "two/lab.yaml:1"
    assert [board.name for board in load("two/fleet.yaml", folders, PROFILES, "200dk")] == ["second"]
    with pytest.raises(ConfigError, match=r"^inventory=fleat: there is no such file") as caught:
        load("fleat", folders, PROFILES)
    assert "did you mean fleet?" in caught.value.hint
    with pytest.raises(ConfigError, match="is a folder"):
        load("./two", folders, PROFILES)


def test_the_shipped_inventories_load() -> None:
    profiles = [path.stem for path in (paths.CONF / "board").glob("*.yaml")]
    example = load("example", [paths.INVENTORY], profiles)
    assert {board.kind for board in example} == {"board", "host"}
    assert {board.host for board in example if board.host[0].isdigit()} <= {
        f"192.0.2.{n}" for n in range(256)
    }
    factory = load("factory", [paths.INVENTORY], profiles)
    assert len(factory) == 8
    assert len({board.profile for board in factory}) == 3
    assert {board.labels["site"] for board in factory} == {"leipzig", "dresden"}
    assert {board.labels["ring"] for board in factory} == {"0", "1", "2"}
    assert all(board.host.startswith("192.0.2.") for board in factory)
    assert [board.name for board in select(factory, "site=dresden,!@night")] == ["weld-1", "server-1"]


def test_ten_thousand_boards(capsys: pytest.CaptureFixture[str]) -> None:
    listed = "".join(
        f"  cam-{n:05}: {{host: 10.{n >> 16}.{n >> 8 & 255}.{n & 255}, profile: 200dk,"
        f" labels: {{site: s{n % 7}}}, overrides: {{infer.top_k: 3}}}}\n"
        for n in range(10_000)
    )
    begin = time.process_time()
    text = f"groups:\n  even: {{boards: ['cam-*[02468]']}}\nboards:\n{listed}"
    listed_boards = load(write("fleet.yaml", text), [], PROFILES, wrong=wrong_value, addresses={"200dk": "192.0.2.1"})
    seconds = time.process_time() - begin
    with capsys.disabled():
        print(f" [10,000 boards in {seconds:.2f} s of CPU]", end="")
    assert seconds < 2
    found = {board.name: board for board in listed_boards}
    assert len(found) == 10_000
    assert found["cam-09999"].place == "fleet.yaml:10003"
    assert sum("even" in board.labels for board in found.values()) == 5_000
    assert gc.isenabled()


# ---------------------------------------------------------------------------- Ansible


INI = """\
# a comment
lonely ansible_host=192.0.2.9 deploy_profile=300i_pro
[cams]
cam[01:03]  ansible_user=HwHiAiUser   # ranges
edge:2222 ansible_host="192.0.2.20" deploy_labels="site=berlin,indoors" deploy_overrides='{infer.top_k: 2}'
here ansible_connection=local
[cams:vars]
ansible_ssh_common_args='-o StrictHostKeyChecking=yes -o ProxyJump=ops@gate'
ansible_ssh_private_key_file = ~/.ssh/cams
[plant:children]
cams
[plant:vars]
ansible_port = 2022
ansible_ssh_private_key_file = ~/.ssh/plant
some_other_variable = {{ whatever }}
[builders]
big deploy_kind=host deploy_password=env:PW
"""


def test_an_ini_inventory() -> None:
    found = {board.name: board for board in load(write("hosts.ini", INI), [], PROFILES, "200dk")}
    assert list(found) == ["lonely", "cam01", "cam02", "cam03", "edge", "big"]
    assert found["lonely"] == Board(name="lonely", profile="300i_pro", host="192.0.2.9")
    assert found["cam02"] == Board(
        name="cam02",
        profile="200dk",
        host="cam02",
        port=2022,
        user="HwHiAiUser",
        key_file="~/.ssh/cams",
        jump="ops@gate",
        labels={"plant": "", "cams": ""},
    )
    edge = found["edge"]
    assert (edge.host, edge.port, edge.place) == ("192.0.2.20", 2222, "hosts.ini:5")
    assert edge.labels == {"plant": "", "cams": "", "site": "berlin", "indoors": ""}
    assert edge.overrides == {"infer.top_k": 2}
    assert (found["big"].kind, found["big"].password) == ("host", "env:PW")


def test_mistakes_in_an_ini_inventory_have_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        load(
            write(
                "hosts",
                "[cams]\na ansible_port=x deploy_profil=y\nb word\nc 'open\n[broken\n[all:children]\nnobody\n"
                "[cams:vars]\nnothing\nd[5:1]\n[g]\ne[9:1]\n",
            ),
            [Path()],
            PROFILES,
            "200dk",
        )
    assert list(caught.value.problems) == [
        "hosts:2: there is no variable deploy_profil; did you mean deploy_profile?",
        "hosts:2: port: x is not a port number, 1 … 65535",
        "hosts:3: b: 'word' is not key=value",
        "hosts:4: cannot be read: no closing quotation",
        "hosts:5: [broken is not a section such as [cameras] or [cameras:vars]",
        "hosts:7: there is no group nobody",
        "hosts:9: 'nothing' is not key=value",
        "hosts:10: 'd[5:1]' is not key=value",
        "hosts:12: e[9:1]: [9:1] is not a range such as [01:20] or [a:f]",
    ]


ANSIBLE = """\
all:
  vars: {deploy_profile: 200dk, ansible_user: everybody}
  children:
    plant:
      children:
        cams:
          hosts:
            cam[a:b]:
              ansible_password: "{{ lookup('env', 'CAM_PASSWORD') }}"
              deploy_labels: {ring: 0}
              deploy_overrides: {infer: {top_k: 4}}
              ansible_python_interpreter: "{{ x }}"
            local: {ansible_connection: local}
          vars: {ansible_user: cams}
      vars: {ansible_user: plant, ansible_port: 2022}
    gates:
      hosts: {cama: , door: {ansible_host: 192.0.2.3}}
"""


def test_a_yaml_inventory_of_ansible() -> None:
    found = boards(ANSIBLE, default="")
    assert list(found) == ["cama", "camb", "door"]
    assert found["cama"].labels == {"plant": "", "cams": "", "gates": "", "ring": "0"}
    assert (found["camb"].user, found["camb"].port, found["camb"].password) == (
        "cams",
        2022,
        "env:CAM_PASSWORD",
    )
    assert found["camb"].overrides == {"infer.top_k": 4}
    assert (found["door"].user, found["door"].host, found["door"].labels) == (
        "everybody",
        "192.0.2.3",
        {"gates": ""},
    )


def test_variables_in_folders_beside_the_inventory() -> None:
    write("group_vars/all.yml", "ansible_user: from_all\nansible_port: 2000")
    write("group_vars/cams/a.yaml", "ansible_port: 2001")
    write("host_vars/camb.yaml", "ansible_user: own")
    write("host_vars/door", "$ANSIBLE_VAULT;1.1;AES256\n3338")
    text = "cams: {hosts: {cama: , camb: {ansible_user: inline}, door: }}"
    assert problems(text) == ["host_vars/door:1: encrypted by ansible-vault: not read"]
    Path("host_vars/door").unlink()
    found = boards(text)
    assert [(board.user, board.port) for board in found.values()] == [
        ("from_all", 2001),
        ("own", 2001),
        ("from_all", 2001),
    ]


def test_what_of_ansible_is_not_understood_is_said() -> None:
    assert problems(
        """\
cams:
  hosts:
    a: {ansible_password: hunter2}
    b: {ansible_host: "{{ prefix }}.7"}
    c: {ansible_ssh_common_args: -o ProxyCommand="ssh -W %h:%p gate"}
    d: {ansible_password: !vault "$ANSIBLE_VAULT;1.1"}
    e: {deploy_kind: thing, deploy_overrides: {infer.topk: 1}}
"""
    ) == [
        f"fleet.yaml:3: {NO_SECRET}",
        "fleet.yaml:4: host: templates are not evaluated; give deploy a plain value",
        "fleet.yaml:5: ansible_ssh_common_args: a ProxyCommand is not understood;"
        " give the jump host as deploy_jump",
        "fleet.yaml:6: a password in ansible-vault is not read: name the secret with deploy_password",
        "fleet.yaml:7: deploy_kind: thing is neither board nor host",
        "fleet.yaml:7: infer.topk: there is no such setting; did you mean infer.top_k?",
    ]


def test_groups_in_a_circle_are_named() -> None:
    assert problems("a: {children: {b: {children: {a: {}}}}}") == [
        "fleet.yaml:1: group a is its own descendant"
    ]


# ---------------------------------------------------------------------------- programs


DYNAMIC = {
    "cams": {"hosts": ["cam-1", "cam-2"], "vars": {"deploy_profile": "200dk"}},
    "old": ["door"],
    "plant": {"children": ["cams", "old"]},
    "_meta": {
        "hostvars": {
            "cam-1": {"ansible_host": "192.0.2.1", "ansible_port": 2222},
            "door": {"deploy_profile": 500},
        }
    },
}


def test_a_program_in_ansibles_form() -> None:
    spec = program(
        "fleet.py", f"import sys\nassert sys.argv[1:] == ['--list']\nprint({json.dumps(json.dumps(DYNAMIC))})"
    )
    found = {board.name: board for board in load(spec, [], PROFILES)}
    assert found["cam-1"] == Board(
        name="cam-1", profile="200dk", host="192.0.2.1", port=2222, labels={"plant": "", "cams": ""}
    )
    assert (found["door"].profile, found["door"].host, found["door"].labels) == (
        "atlas500",
        "door",
        {"plant": "", "old": ""},
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_program_in_our_own_form(wrapped: bool) -> None:
    listed = [
        {"name": "a", "host": "192.0.2.1", "labels": {"site": "x"}, "overrides": {"infer": {"top_k": 2}}}
    ]
    spec = program("fleet.sh", f"print({json.dumps(json.dumps({'boards': listed} if wrapped else listed))})")
    assert load(spec, [], PROFILES, "200dk") == [
        Board(name="a", profile="200dk", host="192.0.2.1", labels={"site": "x"}, overrides={"infer.top_k": 2})
    ]


def test_mistakes_in_what_a_program_prints_name_the_key() -> None:
    text = '{"boards": {"a": {"port": 99999}, "b": {"user": "x y"}, "a": {"prt": 1}}}'
    spec = program("fleet", f"print({text!r})")
    with pytest.raises(ConfigError) as caught:
        load(spec, [], PROFILES, "200dk")
    assert set(caught.value.problems) == {
        "fleet boards.a.port: port: 99999 is not a port number, 1 … 65535",
        "fleet boards.b.user: user: 'x y' is not a user's name",
        "fleet boards.a.prt: a board has no prt; did you mean port?",
        "fleet boards.a: a: an earlier entry has this name already",
    }


def test_a_json_file_has_lines_like_yaml_and_may_have_tabs() -> None:
    assert problems('{"boards": {\n "a": {"port": 0}}}', name="fleet.json") == [
        "fleet.json:2: port: 0 is not a port number, 1 … 65535"
    ]
    assert boards('{\n\t"boards": {"a": {"user": "\\u00fc"}}}', name="fleet.json")["a"].user == "ü"
    with pytest.raises(ConfigError, match=r"fleet\.json"):
        boards("{", name="fleet.json")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("import sys; sys.exit('no connection to the database')", r"ended with status 1: no connection"),
        ("print('hello')", r"what it prints is not JSON"),
        ("import time; print('{', flush=True); time.sleep(600)", r"printed no inventory within 0\.5 s"),
    ],
)
def test_a_program_that_fails(body: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(program("fleet", body), [], PROFILES, limit=0.5 if "sleep" in body else 30)


def test_a_program_without_interpreter_line_and_a_yaml_file_that_is_executable() -> None:
    path = Path(write("fleet", "boards: {a: }"))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ConfigError, match="cannot be run"):
        load("./fleet", [], PROFILES)
    yaml_file = Path(write("fleet.yaml", "boards: {a: }"))
    yaml_file.chmod(0o755)
    assert len(load("fleet.yaml", [], PROFILES, "200dk")) == 1


def test_what_a_program_started_ends_with_it(here: Path) -> None:
    body = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('child', 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(ConfigError, match="within 3 s"):
        load(program("fleet", body), [], PROFILES, limit=3)
    child = int((here / "child").read_text())
    for _ in range(500):
        try:
            # A killed orphan may stay a zombie until it is collected.
            if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return
            os.kill(child, 0)
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.01)
    pytest.fail("the program's child is still running")


# ---------------------------------------------------------------------------- ssh_config


SSH = """\
Include more/*.conf
Host cam-01 cam-02 !gate
    Port 2222
    User HwHiAiUser
Host cam-01
    HostName 192.0.2.1
    IdentityFile "~/.ssh/cam key"
Host cam-02
    hostname=192.0.2.2
    User ignored
Match exec "false"
    User nobody
Host *
    User fallback
    IdentityFile %d/.ssh/id
"""


def test_entries_of_ssh_config() -> None:
    write("more/lab.conf", "Host lab-1 lab-*\n  ProxyJump gate\n")
    write("config", SSH)
    found = {board.name: board for board in load("ssh:*", [], PROFILES, "200dk", ssh_config="config")}
    assert list(found) == ["lab-1", "cam-01", "cam-02"]
    # The alias stays the host: the connection looks it up with everything else the file says about it.
    assert found["cam-01"] == Board(
        name="cam-01", profile="200dk", host="cam-01", port=2222, user="HwHiAiUser", key_file="~/.ssh/cam key"
    )
    assert (found["cam-02"].user, found["lab-1"].user) == ("HwHiAiUser", "fallback")
    assert found["lab-1"].key_file == ""
    assert found["lab-1"].place == "more/lab.conf:1"
    assert [board.name for board in load("ssh:cam-0?", [], PROFILES, "200dk", ssh_config="config")] == [
        "cam-01",
        "cam-02",
    ]


def test_two_aliases_of_one_board_are_found_out() -> None:
    write("config", "Host a b\n  HostName 192.0.2.1\nHost c\n  HostName 192.0.2.1\n  Port 23\n")
    with pytest.raises(ConfigError, match=r"config:1: b has the address of a \(line 1\): 192\.0\.2\.1:22"):
        load("ssh:*", [], PROFILES, "200dk", ssh_config="config")


def test_ssh_patterns_and_files_that_are_not_there() -> None:
    write("config", "Host cam-01\nHost *\n")
    with pytest.raises(ConfigError, match="no Host of config matches") as caught:
        load("ssh:cam-1", [], PROFILES, ssh_config="config")
    assert "cam-01" in caught.value.hint
    with pytest.raises(ConfigError, match="there is no nowhere"):
        load("ssh:*", [], PROFILES, ssh_config="nowhere")
    write("config", "Include config\n")
    with pytest.raises(ConfigError, match="include each other"):
        load("ssh:*", [], PROFILES, ssh_config="config")


# ---------------------------------------------------------------------------- select


FLEET = [
    Board("cam-01", "200dk", labels={"line-a": "", "site": "berlin", "ring": "0"}),
    Board("cam-02", "200dk", labels={"line-a": "", "site": "berlin", "ring": "1"}),
    Board("cam-11", "300i_pro", labels={"site": "munich", "ring": "1"}),
    Board("door", "300i_pro", labels={"site": "munich east"}),
    Board("builder", "300i_pro", labels={"line-a": "", "site": "berlin"}, kind="host"),
]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("", "cam-01 cam-02 cam-11 door"),
        ("*", "cam-01 cam-02 cam-11 door"),
        ("door,cam-01", "cam-01 door"),
        ("cam-0*,cam-01", "cam-01 cam-02"),
        ("cam-[01]1", "cam-01 cam-11"),
        ("@line-a", "cam-01 cam-02"),
        ("@ring", "cam-01 cam-02 cam-11"),
        ("site=berlin", "cam-01 cam-02"),
        ("site=munich*", "cam-11 door"),
        ("site=munich east", "door"),
        ("profile=300i_pro", "cam-11 door"),
        ("ring=0,door", "cam-01 door"),
        ("!cam-01", "cam-02 cam-11 door"),
        ("!@line-a,!door", "cam-11"),
        ("@line-a,!ring=1", "cam-01"),
        ("!ring=1,@line-a", "cam-01"),
        (" cam-01 , ! door ,", "cam-01"),
        ("builder", "builder"),
        ("builder,door", "door builder"),
    ],
)
def test_select(expression: str, names: str) -> None:
    assert [board.name for board in select(FLEET, expression)] == names.split()


@pytest.mark.parametrize(
    ("expression", "message", "hint"),
    [
        ("cam-1", "no board has this name", "did you mean hosts=cam-11?"),
        ("zzz", "no board has this name", "there are: cam-01, cam-02, cam-11, door"),
        ("zz*", "no board matches", "there are: cam-01"),
        ("line-a", "no board has this name", "a label has: hosts=@line-a"),
        ("!door2", "no board has this name", "did you mean hosts=!door?"),
        ("@line-b", "no board has this label", "did you mean hosts=@line-a?"),
        ("!@line-b", "no board has this label", "did you mean hosts=!@line-a?"),
        ("sit=berlin", "no board has this label", "did you mean hosts=site=berlin?"),
        ("site=berln", "no board has this value", "did you mean hosts=site=berlin?"),
        ("profile=300i", "no board has this value", "did you mean hosts=profile=300i_pro?"),
        ("cam-01,!cam-0*", "leaves no board", "negations"),
        ("door,cam-1", "hosts=cam-1:", "cam-11"),
    ],
)
def test_select_explains_what_names_nothing(expression: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(FLEET, expression)
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_select_from_nothing() -> None:
    assert select([], "") == []
    with pytest.raises(UsageError) as caught:
        select([], "a")
    assert caught.value.hint == "the inventory has no boards"


terms = st.sampled_from(
    ["cam-01", "cam-*", "door", "@line-a", "@ring", "site=berlin", "ring=1", "profile=200dk", "builder"]
)


@given(st.lists(terms, min_size=1, max_size=4), st.lists(terms, max_size=3))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a machine may be busy
def test_select_is_union_less_union(wanted: list[str], unwanted: list[str]) -> None:
    def named(items: list[str]) -> set[str]:
        return {board.name for item in items for board in select(FLEET, item)}

    expected = [board.name for board in FLEET if board.name in named(wanted) - named(unwanted)]
    expression = ",".join([*wanted, *(f"!{item}" for item in unwanted)])
    if expected:
        assert [board.name for board in select(FLEET, expression)] == expected
    else:
        with pytest.raises(UsageError):
            select(FLEET, expression)
