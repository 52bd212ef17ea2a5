"""The shell text that makes CANN usable, run by real shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from toolkit.cann.environment import environment_script, toolkit_script
from toolkit.config.schema import CannSettings, EnvironmentRange
from toolkit.errors import ConfigError

SHELLS = [shell for shell in ("bash", "dash", "sh") if shutil.which(shell)]


def run(shell: str, script: str, home: Path, show: str, **variables: str) -> tuple[str, str]:
    """Source ``script`` with ``home`` and print ``show``; returns output and error output."""
    done = subprocess.run(
        [shell, "-c", f'{script}\nprintf %s "{show}"'],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout, done.stderr


def cann(version: str = "7.0.0", **fields: object) -> CannSettings:
    return CannSettings(version=version, environments=[EnvironmentRange(**fields)])  # type: ignore[arg-type]


@pytest.mark.parametrize("shell", SHELLS)
def test_folders_come_in_front_and_leave_no_empty_entry(shell: str, tmp_path: Path) -> None:
    script = environment_script(cann(paths={"LD_LIBRARY_PATH": ["$HOME/a", "/b"]}))
    assert run(shell, script, tmp_path, "$LD_LIBRARY_PATH")[0] == f"{tmp_path}/a:/b"
    before = run(shell, script, tmp_path, "$LD_LIBRARY_PATH", LD_LIBRARY_PATH="/was")[0]
    assert before == f"{tmp_path}/a:/b:/was"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_first_set_env_that_exists_is_sourced(shell: str, tmp_path: Path) -> None:
    home = tmp_path / "a home with spaces"
    for name in ("two", "three"):
        (home / name).mkdir(parents=True)
        (home / name / "set_env.sh").write_text(f"export WHICH={name}\n")
    script = environment_script(
        cann(set_env=[f"$HOME/{name}/set_env.sh" for name in ("one", "two", "three")])
    )
    assert run(shell, script, home, "$WHICH ${_cann-unset}") == ("two unset", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_missing_cann_is_named_on_the_error_output(shell: str, tmp_path: Path) -> None:
    script = environment_script(cann("8.0.0", set_env=["$HOME/none/set_env.sh"]))
    out, err = run(shell, script, tmp_path, "still here")
    assert out == "still here"
    assert err == "CANN 8.0.0: none of the set_env.sh in board.cann.environments is on this machine\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_nothing_is_said_where_paths_lead_to_cann_too(shell: str, tmp_path: Path) -> None:
    script = environment_script(
        cann("5.0.3", paths={"PYTHONPATH": ["/x"]}, set_env=["$HOME/none/set_env.sh"])
    )
    assert run(shell, script, tmp_path, "$PYTHONPATH") == ("/x", "")


def test_order_variables_paths_lines_set_env(tmp_path: Path) -> None:
    (tmp_path / "set_env.sh").write_text('export TRACE="$TRACE:$A:$PYTHONPATH:$B"\n')
    script = environment_script(
        cann(
            variables={"A": "$HOME"},
            paths={"PYTHONPATH": ["$A/p"]},
            lines=["B=line; TRACE=begin"],
            set_env=["$HOME/set_env.sh"],
        )
    )
    assert run("sh", script, tmp_path, "$TRACE")[0] == f"begin:{tmp_path}:{tmp_path}/p:line"


def test_the_toolkit_has_ranges_of_its_own() -> None:
    both = CannSettings(
        version="8.5.0",
        environments=[EnvironmentRange(lines=["echo run"])],
        toolkits=[EnvironmentRange(before="8.5", lines=["echo old"]), EnvironmentRange(lines=["echo new"])],
    )
    assert environment_script(both) == "echo run\n"
    assert toolkit_script(both) == "echo new\n"


def test_no_fitting_range_names_key_and_version() -> None:
    with pytest.raises(ConfigError, match=r"board\.cann\.environments: .* CANN 5\.0\.3") as caught:
        environment_script(cann("5.0.3", since="5.0.4"))
    assert "board.cann.version" in caught.value.hint
    with pytest.raises(ConfigError, match=r"board\.cann\.toolkits"):
        toolkit_script(cann())


@pytest.mark.parametrize(
    "path", ['/a"; touch x; "', "$(touch x)/set_env.sh", "`touch x`", "/a\nb", "/a\\b", ""]
)
def test_a_path_that_a_shell_would_act_on_is_refused(path: str) -> None:
    for fields in ({"set_env": [path]}, {"paths": {"PATH": [path]}}, {"variables": {"A": path}}):
        with pytest.raises(ConfigError, match="cannot stand in a shell script"):
            environment_script(cann(**fields))


@pytest.mark.parametrize("name", ["A-B", "1A", "A;B", "", "A B"])
def test_a_variable_must_have_a_variables_name(name: str) -> None:
    for fields in ({"variables": {name: "x"}}, {"paths": {name: ["x"]}}):
        with pytest.raises(ConfigError, match="not a variable's name"):
            environment_script(cann(**fields))
