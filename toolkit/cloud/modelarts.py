"""ModelArts' training jobs (API v2) through Huawei's own SDK; failures are one line with the request's id."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.cloud.apart import apart
from toolkit.cloud.credentials import modelarts_keys
from toolkit.cloud.settings import ModelArtsSettings, ObsSettings
from toolkit.errors import CloudError, ConfigError

FINAL = ("Completed", "Failed", "Terminated", "Abnormal")
RUNNING = "Running"
# Nothing has begun yet: the job waits for its resources.
WAITING = ("Creating", "Pending", "Waiting")
TASK = "worker-0"
ATTEMPTS = 4

# "API Reference", ModelArts error codes.
HINTS = {
    401: "the keys are wrong or expired, or of another region (store.obs.access_key, modelarts.project_id)",
    403: "the account has no right to it, or ModelArts has no agency yet: see ModelArts' console, Settings",
    404: "see modelarts.project_id and modelarts.region",
    429: "ModelArts asks to be asked less often: raise modelarts.poll",
}


@dataclass(frozen=True)
class Wanted:
    """A job to create. Addresses are ``/bucket/path/``, as the API takes them."""

    name: str
    description: str
    code_dir: str
    boot_file: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    log: str


@dataclass(frozen=True)
class State:
    """A job as ModelArts sees it. ``exit_code`` and ``message`` of its first task."""

    id: str
    name: str
    phase: str
    exit_code: int | None = None
    message: str = ""


@dataclass
class Service:
    """ModelArts in one region."""

    settings: ModelArtsSettings
    obs: ObsSettings
    sleep: Callable[[float], None] = time.sleep
    _client: Any = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """The service's address, for messages."""
        return endpoint(self.settings, self.obs).split("//", 1)[-1]

    def create(self, wanted: Wanted) -> State:
        """Create the job. Not tried again: a job that was created unseen is found by :meth:`find`."""
        import huaweicloudsdkmodelarts.v1 as api

        settings = self.settings
        algorithm = api.JobAlgorithm(
            code_dir=wanted.code_dir,
            boot_file=wanted.boot_file,
            engine=api.JobEngine(
                **{
                    key: value
                    for key in ("engine_id", "engine_name", "engine_version", "image_url")
                    if (value := getattr(settings, key))
                }
            ),
            inputs=[
                api.Input(name=name, remote=api.InputDataInfo(obs=api.InputDataInfoObs(obs_url=where)))
                for name, where in wanted.inputs.items()
            ],
            outputs=[
                api.Output(name=name, remote=api.Remote(obs=api.RemoteObs(obs_url=where)))
                for name, where in wanted.outputs.items()
            ],
            environments=dict(settings.environments) or None,
        )
        body = api.Job(
            kind="job",
            metadata=api.JobMetadata(
                name=wanted.name, workspace_id=settings.workspace_id, description=wanted.description[:256]
            ),
            algorithm=algorithm,
            spec=api.Spec(
                resource=api.SpecResource(
                    flavor_id=settings.flavor_id or None, pool_id=settings.pool_id or None, node_count=1
                ),
                log_export_path=api.LogExportPath(obs_url=wanted.log),
                auto_stop=api.AutoStop(time_unit="HOURS", duration=settings.max_hours),
            ),
        )
        request = api.CreateTrainingJobRequest(body=body)
        return _state(self._ask("create the training job", "create_training_job", request, attempts=1))

    def show(self, job: str) -> State:
        """The job as it is now."""
        import huaweicloudsdkmodelarts.v1 as api

        request = api.ShowTrainingJobDetailsRequest(training_job_id=job)
        return _state(self._ask(f"look at training job {job}", "show_training_job_details", request))

    def find(self, name: str) -> State | None:
        """The newest job of that name, or None."""
        import huaweicloudsdkmodelarts.v1 as api

        search = api.JobSearches(
            offset=0,
            limit=50,
            sort_by="create_time",
            order="desc",
            workspace_id=self.settings.workspace_id,
            filters=[api.Filter(key="name", operator="like", value=[name])],
        )
        answer = self._ask(
            f"look for training job {name}", "list_training_jobs", api.ListTrainingJobsRequest(body=search)
        )
        # "like" finds names that only contain it, too.
        return next((state for item in answer.items or () if (state := _state(item)).name == name), None)

    def stop(self, job: str) -> None:
        """Ask for the job's end. ModelArts refuses for one that has ended."""
        import huaweicloudsdkmodelarts.v1 as api

        request = api.StopTrainingJobRequest(training_job_id=job, body=api.JobActionType(action_type="terminate"))
        self._ask(f"stop training job {job}", "stop_training_job", request)

    def log(self, job: str) -> tuple[str, int]:
        """The log's end, and the size of all of it in bytes. ModelArts keeps some megabytes at hand."""
        import huaweicloudsdkmodelarts.v1 as api

        request = api.ShowTrainingJobLogsPreviewRequest(training_job_id=job, task_id=TASK)
        answer = self._ask(f"read the log of training job {job}", "show_training_job_logs_preview", request)
        content = str(answer.content or "")
        return content, int(answer.full_size or len(content.encode()))

    def _ask(self, verb: str, method: str, request: Any, *, attempts: int = ATTEMPTS) -> Any:
        """The SDK's answer. Raises CloudError after ``attempts`` tries where another one can help."""
        for attempt in range(1, attempts + 1):
            try:
                return apart(lambda: getattr(self._connected(), method)(request))
            except (CloudError, ConfigError):
                raise
            except Exception as error:  # the SDK's own, those of requests, and what its parsers raise
                status = int(getattr(error, "status_code", 0) or 0)
                refused = 400 <= status < 500 and status not in (408, 429)
                if refused or attempt == attempts:
                    raise self._failure(verb, status, error) from None
                self.sleep(min(self.settings.poll, 2.0**attempt))
        raise AssertionError("attempts is at least 1")

    def _failure(self, verb: str, status: int, error: Exception) -> CloudError:
        if not status:
            timeout = "timeout" in type(error).__name__.lower() or "timed out" in str(error).lower()
            first = (str(getattr(error, "error_msg", "") or error).strip().splitlines() or [""])[0]
            why = f"nothing was heard for {self.settings.read:g} s" if timeout else first or type(error).__name__
            return CloudError(
                f"could not {verb}: {self.host}: {why}",
                cause="timeout" if timeout else "unreachable",
                host=self.host,
                hint="see modelarts.endpoint and modelarts.region, and the network",
            )
        code = str(getattr(error, "error_code", "") or "")
        request = str(getattr(error, "request_id", "") or "none given")
        text = (str(getattr(error, "error_msg", "") or "").strip().splitlines() or [""])[0]
        said = " ".join(filter(None, [code, f"({status})", text]))
        cause = {401: "unauthorised", 403: "forbidden", 404: "not-found"}.get(status)
        return CloudError(
            f"could not {verb}: {self.host}: {said}; request {request}",
            cause=cause or ("server" if status >= 500 else "refused"),
            host=self.host,
            hint=HINTS.get(status, "ModelArts itself is in trouble: try later" if status >= 500 else ""),
            request_id=request,
        )

    def _connected(self) -> Any:
        if self._client is None:
            self._client = _client(self.settings, self.obs)
        return self._client


def endpoint(settings: ModelArtsSettings, obs: ObsSettings) -> str:
    """The service's address, or ConfigError where neither endpoint nor region is set."""
    region = settings.region or obs.region
    if settings.endpoint or region:
        return settings.endpoint or f"https://modelarts.{region}.myhuaweicloud.com"
    raise ConfigError("modelarts.region: it is needed to reach ModelArts", hint="store=obs store.obs.region=cn-north-4")


def _client(settings: ModelArtsSettings, obs: ObsSettings) -> Any:
    try:
        from huaweicloudsdkcore.auth.credentials import BasicCredentials
        from huaweicloudsdkcore.http.http_config import HttpConfig
        from huaweicloudsdkmodelarts.v1 import ModelArtsClient
    except ImportError:
        raise ConfigError(
            "the package huaweicloudsdkmodelarts is needed for ModelArts", hint="pip install -e '.[cloud]'"
        ) from None
    project = settings.project_id or os.environ.get("HUAWEICLOUD_SDK_PROJECT_ID", "")
    if not project:
        raise ConfigError(
            "modelarts.project_id: there is none, and HUAWEICLOUD_SDK_PROJECT_ID is not set",
            hint="it stands in the console under My Credentials, one for each region",
        )
    # The SDK logs requests through logging; without a handler, warnings would reach the terminal.
    for name in ("huaweicloudsdkcore", "huaweicloudsdkcore.client", "ModelArtsClient"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    keys = modelarts_keys(settings, obs)
    credentials = BasicCredentials(keys.access_key.reveal(), keys.secret_key.reveal(), project)
    if keys.token is not None:
        credentials = credentials.with_security_token(keys.token.reveal())
    config = HttpConfig(timeout=(settings.connect, settings.read), retry_times=0, ssl_ca_cert=settings.ca_file or None)
    builder = ModelArtsClient.new_builder().with_http_config(config).with_credentials(credentials)
    return builder.with_endpoint(endpoint(settings, obs)).build()


def _state(answer: Any) -> State:
    metadata, status = answer.metadata, answer.status
    task = None
    with contextlib.suppress(AttributeError, IndexError, TypeError):
        task = status.task_statuses[0]
    return State(
        id=str(metadata.id),
        name=str(metadata.name),
        phase=str(status.phase) if status is not None else "Creating",
        exit_code=getattr(task, "exit_code", None),
        message=str(getattr(task, "message", "") or ""),
    )
