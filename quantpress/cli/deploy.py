"""Registers quantpress with a Prefect server: work pools, deployments, and automations for dead runs.

``prefect.yaml`` lists the deployments. This module leaves alone what is already registered correctly, so a second call
changes nothing. What a person added to the server, or paused there, stays as it is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from quantpress.errors import BadInput, QuantpressError
from quantpress.machine.cause import cause_of_exit
from quantpress.machine.credentials import harmless_environment

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import AutomationCore

DEPLOYMENTS_FILE = Path(__file__).parents[2] / "prefect.yaml"

#: If a run sends no heartbeat for this long, it counts as dead. In Prefect 3.8.8 a flow run sends a heartbeat every
#: 180 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY). A run can therefore lose two heartbeats without counting as dead.
HEARTBEAT_LOST = timedelta(minutes=10)
#: If a run is pending for this long, it counts as dead. A worker marks a run as pending, and then starts the run's
#: process. Before the start, the worker sometimes has to pull a container's image.
STUCK_IN_PENDING = timedelta(minutes=20)
#: How many times Prefect tries a crashed run again.
RETRIES = 2


@dataclass(frozen=True)
class Registered:
    """One object on the server. ``change`` says what :func:`deploy` did with the object."""

    kind: Literal["work pool", "deployment", "automation"]
    name: str
    change: Literal["created", "changed", "unchanged"]


def deploy(file: Path = DEPLOYMENTS_FILE) -> list[Registered]:
    """Registers all work pools, deployments and automations.

    Raises :class:`BadInput` if no server is set or ``file`` is missing. Raises :class:`QuantpressError` if the server
    cannot be reached or refuses.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import get_current_settings

    endpoint = get_current_settings().api.url
    if not endpoint:
        raise BadInput("no Prefect server is set: start one (prefect server start), and set PREFECT_API_URL")
    wanted = _wanted_deployments(file)
    try:
        with get_client(sync_client=True) as client:
            return [
                *_keep_pools(client, [each["work_pool"]["name"] for each in wanted]),
                *_keep_deployments(client, file, wanted),
                *_keep_automations(client, automations()),
            ]
    except (httpx.HTTPError, PrefectHTTPStatusError, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise QuantpressError(f"the Prefect server at {endpoint} cannot be used: {reason}") from None


def _wanted_deployments(file: Path) -> list[dict[str, Any]]:
    import yaml

    try:
        found: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["deployments"]
    except OSError:
        raise BadInput(f"{file} is missing: deploy from a checkout of quantpress") from None
    return found


def _keep_pools(client: SyncPrefectClient, names: Iterable[str]) -> list[Registered]:
    """Creates the missing work pools. An existing pool keeps its type, which can be one that starts containers."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.workers.process import ProcessWorker

    there = {pool.name for pool in client.read_work_pools()}
    kept = []
    for name in dict.fromkeys(names):
        if name not in there:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        kept.append(Registered("work pool", name, "unchanged" if name in there else "created"))
    return kept


def _keep_deployments(client: SyncPrefectClient, file: Path, wanted: list[dict[str, Any]]) -> list[Registered]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    names = [each["name"] for each in wanted]
    found = client.read_deployments(deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=names)))
    there = {(each.name, each.entrypoint): _shape(each) for each in found}
    kept = []
    for each in wanted:
        before = there.get((each["name"], each["entrypoint"]))
        same = before == _wanted_shape(each, file.parent)
        kept.append(Registered("deployment", each["name"], "unchanged" if same else "changed" if before else "created"))
    to_do = [each.name for each in kept if each.change != "unchanged"]
    if to_do:
        run_prefect_deploy(file, to_do)
    return kept


def _shape(found: DeploymentResponse) -> dict[str, Any]:
    """Returns those properties of a registered deployment that ``prefect.yaml`` sets."""
    limit, options = found.global_concurrency_limit, found.concurrency_options
    schedules = [each.schedule for each in found.schedules]
    return {
        "description": found.description,
        "parameters": found.parameters,
        "pool": found.work_pool_name,
        "schedules": [(getattr(each, "cron", None), getattr(each, "timezone", None)) for each in schedules],
        "limit": limit.limit if limit else None,
        "collision": options.collision_strategy.value if options else None,
        "folders": [next(iter(step.values())).get("directory") for step in found.pull_steps or []],
    }


def _wanted_shape(wanted: dict[str, Any], folder: Path) -> dict[str, Any]:
    limit = wanted.get("concurrency_limit", {})
    return {
        "description": wanted.get("description"),
        "parameters": wanted.get("parameters", {}),
        "pool": wanted["work_pool"]["name"],
        "schedules": [(each["cron"], each.get("timezone")) for each in wanted.get("schedules", [])],
        "limit": limit.get("limit"),
        "collision": limit.get("collision_strategy"),
        # ``prefect.yaml`` names no pull steps. By default Prefect then starts runs in the folder from which
        # ``prefect deploy`` ran.
        "folders": [str(folder)],
    }


def run_prefect_deploy(file: Path, names: list[str]) -> None:
    """Runs ``prefect deploy``, which registers the named deployments of the file."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--prefect-file", str(file)]
    for name in names:
        command += ["--name", name]
    with tempfile.TemporaryDirectory(prefix="quantpress-deploy-") as folder:
        log = Path(folder) / "log.txt"
        with log.open("wb") as said:
            done = subprocess.run(
                command,
                cwd=file.parent,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=harmless_environment("PREFECT_") | {"NO_COLOR": "1"},
                check=False,
            )
        if done.returncode != 0:
            how = f"prefect deploy failed with exit code {done.returncode}"
            raise QuantpressError(cause_of_exit(log.read_text(errors="replace")).said_of(how))


def automations() -> list[AutomationCore]:
    """Returns the automations that mark the run of a dead worker as crashed and try the run again.

    A self-hosted Prefect server does not notice a dead worker by itself. The first automation follows Prefect's page on
    zombie flows (docs.prefect.io/v3/advanced/detect-zombie-flows). The run count limits the tries, but the count rises
    only when a run starts. A run that never started is therefore not tried again.
    """
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    def flow_runs(**labels: list[str]) -> ResourceSpecification:
        counts = {"prefect.run-count": labels["counts"]} if labels else {}
        return ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"], **counts})

    def silence(after: set[str], expect: set[str], within: timedelta) -> EventTrigger:
        return EventTrigger(
            after={f"prefect.flow-run.{name}" for name in after},
            expect={f"prefect.flow-run.{name}" for name in expect},
            match=flow_runs(),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        )

    ends = {"Completed", "Failed", "Cancelled", "Crashed", "TimedOut"}
    waits = {"Scheduled", "Late", "AwaitingRetry", "AwaitingConcurrencySlot", "Cancelling"}
    return [
        AutomationCore(
            name="quantpress: heartbeat lost",
            description="A running flow run that is not heard of any more has crashed.",
            trigger=silence({"heartbeat"}, {"heartbeat", "Paused", "Suspended", *ends, *waits}, HEARTBEAT_LOST),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="Its heartbeat was lost: the worker died.")],
        ),
        AutomationCore(
            name="quantpress: stuck in pending",
            description="A flow run that a worker took and did not start has crashed.",
            trigger=silence({"Pending"}, {"Running", *ends, *waits}, STUCK_IN_PENDING),
            actions=[
                ChangeFlowRunState(state=StateType.CRASHED, message="It was taken by a worker and never started.")
            ],
        ),
        AutomationCore(
            name="quantpress: crashed runs are tried again",
            description=f"At most {RETRIES} times. What the crashed run has published is not made again.",
            trigger=EventTrigger(
                expect={"prefect.flow-run.Crashed"},
                match=flow_runs(counts=[str(count) for count in range(1, RETRIES + 1)]),
                match_related=ResourceSpecification(
                    {"prefect.resource.role": "deployment", "prefect.resource.id": "prefect.deployment.*"}
                ),
                for_each={"prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            actions=[ChangeFlowRunState(state=StateType.SCHEDULED, message="It crashed and is tried again.")],
        ),
    ]


def _keep_automations(client: SyncPrefectClient, wanted: Iterable[AutomationCore]) -> list[Registered]:
    return [_keep_automation(client, each) for each in wanted]


def _keep_automation(client: SyncPrefectClient, wanted: AutomationCore) -> Registered:
    from prefect.events.schemas.automations import AutomationCore

    there = client.read_automations_by_name(wanted.name)
    if not there:
        client.create_automation(wanted)
        return Registered("automation", wanted.name, "created")
    found = there[0]
    before = AutomationCore.model_validate(found.model_dump(include=set(AutomationCore.model_fields)))
    # The operator decides whether the automation is enabled.
    if before.model_dump() == wanted.model_copy(update={"enabled": before.enabled}).model_dump():
        return Registered("automation", wanted.name, "unchanged")
    client.update_automation(found.id, wanted.model_copy(update={"enabled": before.enabled}))
    return Registered("automation", wanted.name, "changed")
