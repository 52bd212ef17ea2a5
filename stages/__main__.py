"""The command line: ``deploy [VERB] [HYDRA OVERRIDES]``.

The verb and our own flags are taken off before Hydra sees the line; everything else is Hydra's.
"""

from __future__ import annotations

import copy
import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from stages._registry import BOARD_ORDER, help_of, stage_names, verb_names
from toolkit import paths
from toolkit.errors import ConfigError, DeployError, InputError, Interrupted, UsageError

if TYPE_CHECKING:
    from hydra.types import TaskFunction
    from omegaconf import DictConfig

    from stages._invocation import Flags
    from toolkit.ui.console import Renderer

# Verbs that take a second word of their own.
WORDS = {"sim": ("up", "run", "shell")}

# Words and flags of our own that mean something to some verbs only: the others refuse them. "stages" are those that
# build; one that works on boards is an apply.
TAKEN_BY = {
    "out=": ("plan", "init"),
    "plan=": ("apply",),
    "release=": ("rollback",),
    "replace=": ("trust",),
    "run=": ("report",),
    "--detailed-exitcode": ("plan",),
    "--until-done": ("apply",),
    "--receipts": ("verify",),
    "--attach": ("apply", "stages"),
}

# Hydra's flags: with what may stand behind them (None: anything), and alone.
WITH_VALUE: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    **dict.fromkeys(("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"), None),
    **dict.fromkeys(("--package", "-p", "--experimental-rerun"), None),
}
ALONE = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m")

HELP = """\
deploy [VERB] [OVERRIDES]     train, convert and roll out a network to Ascend boards

  deploy +board=sim                      everything on simulated boards, on this machine
  deploy +board=200dk                    an Atlas 200 DK at its default address
  deploy +board=200dk board.host=…       … at another one
  deploy inventory=factory simulate=true app=digits hosts=@canary
                                         those boards of a fleet that have the label canary, simulated

verbs (none: apply)
{verbs}

stages (just that stage and what it needs)
  {stages}

overrides
  key=value            any setting: train.epochs=3  atc.precision_mode=force_fp32  preprocess.mean=[0.5,0.5,0.5]
  group=name           {groups}
  deploy --cfg job +board=sim            prints every setting with its value

flags
  --yes                answer yes to what is asked: boards that were not named, keys to pin, pauses between waves
  --json               JSON lines instead of text
  --quiet              only the summary and errors
  --debug              tracebacks and the tools' whole output
  --detailed-exitcode  plan: exit with 3 when something would change
  --until-done         apply: go on until the boards that are offline now have it too
  --receipts           verify: are the receipts kept here whole; asks no board
  --attach             train.where=ssh, modelarts: follow the job that there is, never start one
  --version            of this program
  -m, --config-dir, --hydra-help, …      Hydra's own

exit codes
  0 done   1 a defect   2 bad config or usage   3 plan found changes   4 some boards failed   5 all boards failed
  6 a gate refused the release   7 what is there is not what was planned   130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    code = run(arguments)
    sys.unraisablehook = _at_the_end
    sys.exit(code)


def _at_the_end(problem: Any) -> None:
    """Ctrl-C while Python waits for the last threads, of boards whose lines were just cut: no words are needed."""
    if problem.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(problem)


def run(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    from toolkit.ui.console import renderer as make_renderer

    debug = "--debug" in arguments
    shown = make_renderer(as_json="--json" in arguments, quiet="--quiet" in arguments, debug=debug)
    try:
        return _run(arguments, shown)
    except BrokenPipeError:
        # The reader of our output went away (`deploy … | head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        shown.close()
        if debug and not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
        told = _told(error)
        shown.error(told)
        return told.exit_code
    finally:
        shown.close()


# What a disk says about itself, and not about a defect of ours.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DISK = (*_FULL, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EROFS, errno.ENAMETOOLONG)


def _told(error: BaseException) -> DeployError:
    """Any error as one that people are told of."""
    if isinstance(error, DeployError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted", hint="the same command goes on where this one stopped")
    if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:
        hint = "make room, or DEPLOY_HOME=FOLDER names another place"
        return InputError(f"{paths.base()}: {error.strerror}", hint=hint)
    if isinstance(error, OSError) and error.filename is not None:
        place = Path(os.fsdecode(error.filename))
        if error.errno in _DISK or place in (paths.base(), *paths.base().parents):
            hint = "deploy writes below the folder that it is run from; DEPLOY_HOME=FOLDER names another"
            return InputError(f"{place}: {error.strerror}", hint=hint)
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(last.filename)}:{last.lineno}"
    first = (str(error).strip().splitlines() or [""])[0]
    return DeployError(
        f"a defect of ascend-deploy: {type(error).__name__}: {first} ({where})",
        hint="run it again with --debug and report what it prints",
    )


def _run(arguments: list[str], shown: Renderer) -> int:
    if _completing(arguments):
        _complete_verbs(arguments, shown)
        return _hydra(arguments, None, [], [], None, shown)
    arguments, rest = _split_rest(arguments)
    flags, arguments = _take_flags(arguments)
    arguments = _flags_first(arguments)
    verb, words, left = _take_verb(arguments)
    typed = len(left) < len(arguments)
    arguments = left
    if "--help" in arguments or "-h" in arguments:
        shown.close()
        _help(verb if typed else "", shown)
        return 0
    if "--version" in arguments:
        _version(shown)
        return 0
    _check_taken(verb, flags, arguments)
    if verb == "sim":
        arguments.append("simulate=true")
    from toolkit.artefacts.lock import with_lock

    many = any(argument in ("-m", "--multirun") for argument in arguments)
    arguments = with_lock([_quoted(_with_plus(argument), many) for argument in arguments])
    return _hydra(arguments, verb, words, rest, flags, shown)


def _completing(arguments: Sequence[str]) -> bool:
    return any(argument in ("-sc", "--shell-completion") for argument in arguments)


def _complete_verbs(arguments: Sequence[str], shown: Renderer) -> None:
    """Answer the shell with the verbs that fit, and hide ours from Hydra, which completes the overrides."""
    line = os.environ.get("COMP_LINE", "")
    if not any(argument.startswith("query=") for argument in arguments) or not line:
        return
    *before, last = [*line.split()[1:], *([""] if line.endswith(" ") else [])] or [""]
    known = sorted({*verb_names(), *stage_names()})
    if not any(word in known for word in before):
        shown.line(" ".join(name for name in known if name.startswith(last)))
    left = [word for word in before if word not in known and not word.startswith("--")]
    os.environ["COMP_LINE"] = " ".join(["deploy", *left, last])


def _split_rest(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" in arguments:
        cut = arguments.index("--")
        return arguments[:cut], arguments[cut + 1 :]
    return arguments, []


def _flag_names() -> list[str]:
    from stages._invocation import Flags

    return [item.name.replace("_", "-") for item in fields(Flags)]


def _take_flags(arguments: list[str]) -> tuple[Flags, list[str]]:
    from stages._invocation import Flags

    names = {"--" + name: name.replace("-", "_") for name in _flag_names()}
    given = {names[argument]: True for argument in arguments if argument in names}
    return Flags(**given), [argument for argument in arguments if argument not in names]


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's flags with their values, then the rest: Hydra takes no setting behind a flag behind a setting.

    :raises UsageError: a flag is nobody's.
    """
    ours = ["--" + name for name in _flag_names()]
    first: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, _, value = argument.partition("=")
        if not argument.startswith("-"):
            rest.append(argument)
        elif name in WITH_VALUE:
            choices = WITH_VALUE[name]
            if not value and waiting and "=" not in waiting[0] and (choices is None or waiting[0] in choices):
                value = waiting.pop(0)
            if not value and name in ("--info", "-i"):
                value = "all"
            if not value or (choices is not None and value not in choices):
                raise UsageError(f"{argument}: {' | '.join(choices)}" if choices else f"{name}: a value is missing")
            first += [name, value]
        elif argument in ALONE:
            first.append(argument)
        else:
            near = difflib.get_close_matches(name, [*ours, *WITH_VALUE, *ALONE], n=1)
            raise UsageError(
                f"{name}: there is no such flag" + (f"; did you mean {near[0]}?" if near else ""),
                hint="deploy --help lists them",
            )
    return [*first, *rest]


def _check_taken(verb: str, flags: Flags, arguments: Sequence[str]) -> None:
    """Refuse what the verb would pass over in silence."""
    kind = verb if verb in verb_names() else "apply" if verb in BOARD_ORDER else "stages"
    given = ["--" + name.replace("_", "-") for name, value in vars(flags).items() if value]
    for word in (*arguments, *given):
        key, equals, value = word.partition("=")
        takers = TAKEN_BY.get(key + equals, (kind,)) if value not in ("", "null") or not equals else (kind,)
        if kind not in takers:
            verbs = " and ".join("stages that build" if name == "stages" else f"deploy {name}" for name in takers)
            raise UsageError(f"{word}: deploy {verb} does not take it, {verbs} {'does' if len(takers) == 1 else 'do'}")


def _version(shown: Renderer) -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("ascend-deploy")
    except PackageNotFoundError:  # run where it lies, not installed
        project = (paths.CONF.parent / "pyproject.toml").read_text(encoding="utf-8")
        found = re.search(r'^version = "(.+)"', project, re.MULTILINE)
        number = found[1] if found else "unknown"
    shown.data({"version": number}, f"ascend-deploy {number}")


def _take_verb(arguments: list[str]) -> tuple[str, list[str], list[str]]:
    """The verb (default ``apply``), its further words, and what is left."""
    bare = [argument for argument in arguments if re.fullmatch(r"[A-Za-z][\w-]*", argument)]
    bare = [
        word
        for word in bare
        if arguments.index(word) == 0 or arguments[arguments.index(word) - 1] not in WITH_VALUE
    ]
    if not bare:
        return "apply", [], arguments
    verb, *words = bare
    known = sorted({*verb_names(), *stage_names()})
    if verb not in known:
        near = difflib.get_close_matches(verb, known, n=1)
        raise UsageError(
            f"{verb}: there is no such verb" + (f"; did you mean {near[0]}?" if near else ""),
            hint="deploy --help lists them; settings are written key=value",
        )
    allowed = WORDS.get(verb, ())
    for word in words:
        if word not in allowed:
            raise UsageError(
                f"{word}: one verb at a time" if word in known else f"{word}: what is it?",
                hint=f"deploy {verb} takes {' | '.join(allowed)}" if allowed else "settings are written key=value",
            )
    left = list(arguments)
    for word in bare:
        left.remove(word)
    return verb, words, left


def _with_plus(argument: str) -> str:
    """The group ``board`` has no default, and Hydra wants a + before what it adds: put it there.

    A bare number is an int to Hydra and no profile's name: ``board=500`` means ``atlas500``, and ``board=500_a2``
    ``atlas500_a2``. ``release.sign`` is what people look for; ``release`` is a value, so that signing is a group of
    its own.
    """
    # With it come the readers of inventories, for which --version and --help need not wait.
    from toolkit.inventory.board import HOST_PROFILE

    argument = re.sub(r"^\+?release\.sign(?=[.=])", "sign", argument)
    match = re.fullmatch(r"\+?board=(.*)", argument)
    if match is None:
        return argument
    names = sorted(path.stem for path in (paths.CONF / "board").glob("*.yaml") if path.stem != HOST_PROFILE)
    chosen = [_board_named(name, names) for name in match.group(1).split(",")]  # several: a sweep
    return f"+board={','.join(chosen)}"


def _board_named(name: str, names: Sequence[str]) -> str:
    from toolkit.inventory.board import profile_named

    if found := profile_named(name, names):
        return found
    if re.fullmatch(r"[\d.]+", name):
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise ConfigError(
            f"board={name}: there is no such board" + (f"; did you mean {near[0]}?" if near else ""),
            hint=f"there are: {', '.join(names)}",
        )
    return name


def _quoted(argument: str, many: bool = False) -> str:
    """Hydra takes ``hosts=a,b`` for a sweep, and refuses ``hosts=!a`` and ``hosts=site=x``: a text, all of them.

    It refuses ``data.root=~/cifar`` too, and no shell expands the ``~`` there: a text as well. So are the values of
    ATC's flags, which are full of commas and semicolons; but lists, ``${…}``, and with ``-m`` (``many``) sweeps.
    """
    key, equals, value = argument.partition("=")
    home = value == "~" or value.startswith("~/")
    flag = key.lstrip("+").startswith("atc.") and not many and not value.startswith(("[", "${"))
    if not equals or value in ("", "null") or (key.lstrip("+") != "hosts" and not home and not flag):
        return argument
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    # In quotes a backslash is special only in front of a quote.
    value = re.sub(r"(\\*)'", r"\1\1\\'", re.sub(r"(\\+)$", r"\1\1", value))
    return f"{key}='{value}'"


def _help(verb: str, shown: Renderer) -> None:
    """Print a verb's or a stage's own help; "": everybody's."""
    if verb:
        line, text = help_of(verb)
        shown.data({"help": text}, f"deploy {verb}: {line}\n\n{text.strip()}\n")
        return
    lines = [f"  {name:<10} {help_of(name)[0]}" for name in verb_names()]
    root = (paths.CONF / "deploy.yaml").read_text(encoding="utf-8")
    # The others are parts of board profiles.
    groups = sorted({"board", *re.findall(r"^  - (\w+): ", root, re.MULTILINE)})
    text = HELP.format(verbs="\n".join(lines), stages=" ".join(stage_names()), groups="  ".join(groups))
    shown.data({"help": text}, text)


def _hydra(
    arguments: list[str], verb: str | None, words: list[str], rest: list[str], flags: Flags | None, shown: Renderer
) -> int:
    """Let Hydra parse and compose, then run the verb. Hydra ignores what a task returns, so the code is kept here."""
    # Without it Hydra prints errors and exits by itself, with code 1.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from stages import _sweep
    from stages._invocation import split_boards
    from toolkit.config.store import register_resolvers

    register_resolvers()
    codes: list[int] = []
    errors: list[BaseException] = []
    sweep: list[_sweep.Job] = []
    seen: set[str] = set()

    def task(composed: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        many = hydra_config.mode == RunMode.MULTIRUN
        if many:
            settings = OmegaConf.to_yaml(composed)
            if settings in seen:
                return  # of a sweep that names the same settings twice
            seen.add(settings)
        results: list[Any] = []
        failed: BaseException | None = None
        # Hydra writes a line of its own about every exception it sees.
        try:
            codes.append(_task(composed, verb or "apply", words, rest, flags, shown, results, of_boards))
        except Exception as error:
            failed = error
            if many and isinstance(error, Interrupted):
                # An exception would only end this job of the sweep.
                errors.append(error)
                raise KeyboardInterrupt from None
            if many and isinstance(error, DeployError):
                shown.error(error)
                codes.append(error.exit_code)
            else:
                errors.append(error)
        if many:
            sweep.append(_sweep.Job(list(hydra_config.overrides.task), results, failed))

    arguments, of_boards = split_boards(arguments) if verb else (arguments, [])
    before = sys.argv
    sys.argv = ["deploy", *arguments]
    try:
        if not _run_composed(arguments, task):
            wrapped: Any = hydra.main(version_base="1.3", config_path=str(paths.CONF), config_name="deploy")
            entry: TaskFunction = wrapped(task)
            entry(None)
    except (HydraException, OmegaConfBaseException) as error:
        raise _plain(error, shown) from error
    except KeyboardInterrupt:
        if errors:
            raise errors[-1] from None
        raise
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
        if sweep:
            shown.close()
            found = _sweep.rows(sweep)
            shown.data({"sweep": found}, _sweep.table(found))
    if errors and isinstance(errors[0], (HydraException, OmegaConfBaseException)):
        raise _plain(errors[0], shown) from errors[0]
    if errors:
        raise errors[0]
    return max(codes, default=0)


# What conf/ leaves as it is of what Hydra does around a run, by keys below "hydra".
_NOTHING_AROUND: dict[str, object] = {
    "mode": None,
    "callbacks": {},
    "run.dir": ".",
    "output_subdir": None,
    "job.chdir": False,
    "job.env_set": {},
    "job_logging.root": None,
    "hydra_logging.root": None,
    "verbose": False,
}


def _run_composed(arguments: list[str], task: TaskFunction) -> bool:
    """Run ``task`` with the config that Hydra's Compose API makes of the line; False, and nothing done, where that is
    for ``hydra.main``.

    ``hydra.main`` composes each line twice, the first time to see whether it is a sweep, and a short verb does little
    else. It is needed for all that the Compose API has not: Hydra's flags, sweeps, what ``hydra:`` of an edited
    ``conf/`` asks for around a run, and the right words about a line that cannot be composed.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf import OmegaConf, open_dict, read_write
    from omegaconf.errors import OmegaConfBaseException

    from toolkit.artefacts.lock import key_of

    if any(argument.startswith("-") or key_of(argument).startswith("hydra") for argument in arguments):
        return False
    # The name is the one that hydra.main finds.
    with initialize_config_dir(str(paths.CONF), job_name="__main__", version_base="1.3"):
        try:
            whole = compose("deploy", list(arguments), return_hydra_config=True)
            if any(OmegaConf.select(whole.hydra, key) != value for key, value in _NOTHING_AROUND.items()):
                return False
        except (HydraException, OmegaConfBaseException):
            return False
        with read_write(whole.hydra), open_dict(whole.hydra):
            whole.hydra.mode = RunMode.RUN
            whole.hydra.runtime.output_dir = os.path.abspath(whole.hydra.run.dir)
        composed = copy.deepcopy(whole)
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        holder = HydraConfig.instance()
        before = holder.cfg
        holder.set_config(whole)
        try:
            task(composed)
        finally:
            holder.cfg = before
    return True


def _task(
    composed: Any,
    verb: str,
    words: list[str],
    rest: list[str],
    flags: Flags | None,
    shown: Renderer,
    results: list[Any],
    of_boards: list[str],
) -> int:
    from hydra import compose
    from hydra.core.hydra_config import HydraConfig

    from stages import _registry
    from stages._invocation import Flags, Invocation
    from stages._loading import load
    from toolkit.artefacts.lock import key_of

    overrides = list(HydraConfig.get().overrides.task)
    config = load(composed, shown.show)
    if of_boards and config.inventory is None:
        raise UsageError(
            f"{of_boards[0]}: no board is chosen",
            hint="+board=sim for simulated boards, +board=200dk for a dev kit, inventory=NAME for a fleet",
        )

    def again(extra: Sequence[str]) -> DictConfig:
        other = any(key_of(item) == "board" for item in extra)
        return compose("deploy", [*(item for item in overrides if not other or key_of(item) != "board"), *extra])

    invocation = Invocation(
        verb=verb,
        composed=composed,
        config=config,
        overrides=[*overrides, *of_boards],
        of_boards=of_boards,
        flags=flags or Flags(),
        renderer=shown,
        compose=again,
        words=words,
        rest=rest,
        results=results,
    )
    name = verb if verb in verb_names() else "stage"
    return int(_registry.verb(name).run(invocation)) if name != "stage" else _run_stage(invocation)


def _run_stage(invocation: Any) -> int:
    from stages._apply import run_stage

    return run_stage(invocation)


def _plain(error: Exception, shown: Renderer) -> ConfigError:
    """Hydra's and OmegaConf's errors as one line with the nearest right name."""
    from toolkit.config.store import unknown_key
    from toolkit.inventory.board import HOST_PROFILE

    text = str(error).strip()
    if match := re.search(r"Interpolation key '([^']+)' not found", text):
        name = match.group(1)
        return ConfigError(
            f"${{{name}}}: there is no such setting", hint=f"${{secret:env,{name}}} names an environment variable"
        )
    if match := re.search(r"Could not override '([^']+)'", text):
        return ConfigError(unknown_key(match.group(1)))
    if match := re.search(r"Could not (?:find|load) '([\w-]+)/([^']+)'", text):
        group, name = match.groups()
        options = sorted(path.stem for path in (paths.CONF / group).glob("*.yaml") if path.stem != HOST_PROFILE)
        near = difflib.get_close_matches(name, options, n=1)
        return ConfigError(
            f"{group}={name}: there is no such {group}" + (f"; did you mean {near[0]}?" if near else ""),
            hint=f"there are: {', '.join(options)}" if options else f"{group} is not a group",
        )
    if match := re.search(r"Could not override '?([\w/@.]+)'?\.\s*No match in the defaults list", text):
        return ConfigError(unknown_key(match.group(1)))
    if type(error).__name__ == "OverrideParseException":
        override = getattr(error, "override", "")
        return ConfigError(
            f"{override}: not an override", hint="write key=value; quote what has spaces or commas: 'key=\"a, b\"'"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ConfigError(": ".join(lines[:2]) if lines else type(error).__name__)


if __name__ == "__main__":
    main()
