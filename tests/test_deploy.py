"""Container and cluster files against the schemas of their tools, and against what the commands really take.

No container runs here: there is no engine in CI. What the files start is tested without containers elsewhere.
"""

import json
import re
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline.cli import root
from pipeline.settings import Settings

DEPLOY = Path(__file__).parents[1] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
MANIFESTS = [
    pytest.param(document, id=f"{path.stem}-{document['kind']}")
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text("utf-8"))
]
OURS = {name: service for name, service in COMPOSE["services"].items() if service.get("image") == "wattrate"}


def containers(document: Any) -> list[Any]:
    template = document.get("spec", {}).get("template", {})
    return list(template.get("spec", {}).get("containers", []))


def parses(arguments: list[str]) -> None:
    """Raises when `wattrate ARGUMENTS` would be a usage error; runs nothing."""
    context = click.Context(root)
    name, found, rest = root.resolve_command(context, arguments)
    assert found is not None
    found.make_context(name, rest, parent=context, resilient_parsing=False)


def settings_of_environment(environment: dict[str, Any]) -> set[str]:
    return {name.removeprefix("WATTRATE_").lower() for name in environment if name.startswith("WATTRATE_")}


def test_the_compose_file_is_what_the_specification_says() -> None:
    # Only its data files are wanted: importing the package asks for a newer click than Faust allows.
    spec = find_spec("check_jsonschema")
    assert spec is not None and spec.submodule_search_locations
    schema = Path(spec.submodule_search_locations[0], "builtin_schemas/vendor/compose-spec.json").read_text("utf-8")
    jsonschema.Draft7Validator(json.loads(schema)).validate(COMPOSE)


def test_compose_has_a_service_for_every_part() -> None:
    assert set(COMPOSE["services"]) >= {"kafka", "clickhouse", "init", "publish", "rate", "watch"}
    assert COMPOSE["services"]["rate"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("service", OURS)
def test_compose_runs_commands_that_exist_with_settings_that_exist(service: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path) if one == "/samples" else one for one in OURS[service]["command"]]
    parses(arguments)
    assert settings_of_environment(OURS[service]["environment"]) <= set(Settings.__dataclass_fields__)


def test_compose_waits_for_what_it_needs() -> None:
    for name, service in OURS.items():
        needed = service["depends_on"]
        assert needed == (
            {"kafka": {"condition": "service_healthy"}, "clickhouse": {"condition": "service_healthy"}}
            if name == "init"
            else {"init": {"condition": "service_completed_successfully"}}
        )


def test_compose_opens_ports_on_loopback_only() -> None:
    ports = chain.from_iterable(service.get("ports", []) for service in COMPOSE["services"].values())
    assert not [port for port in ports if not port.startswith("127.0.0.1:")]


def test_compose_and_maven_take_the_same_kafka() -> None:
    # Maven refuses what is no XML, such as two dashes in a comment
    pom = ElementTree.parse(DEPLOY / "kafka" / "pom.xml")  # noqa: S314 (our own file)
    versions = [version.text for version in pom.findall("./{*}dependencies/{*}dependency/{*}version")]
    assert COMPOSE["services"]["kafka"]["image"].rpartition(":")[2] in versions


@pytest.mark.parametrize("document", MANIFESTS)
def test_manifests_are_what_kubernetes_says(document: Any) -> None:
    kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize("document", MANIFESTS)
def test_manifests_run_commands_and_settings_that_exist(document: Any) -> None:
    names = document.get("data", {})
    assert settings_of_environment(names) <= set(Settings.__dataclass_fields__)
    for container in containers(document):
        parses(list(container["args"]))
        assert settings_of_environment({one["name"]: 0 for one in container.get("env", [])}) <= set(
            Settings.__dataclass_fields__
        )
        assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_image_runs_as_nobody_in_particular_with_kernels_compiled() -> None:
    """Read as text: no schema of Dockerfiles is at hand."""
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    words = [line.split()[0] for line in lines if re.match(r"[A-Z]+ ", line)]
    assert set(words) <= {"FROM", "COPY", "RUN", "USER", "WORKDIR", "ENV", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
    user, warm = words.index("USER"), lines.index("RUN python -m pipeline.rate.warm")
    assert lines.index("USER 10001:10001") < warm
    assert "USER" not in words[user + 1 :]
    assert 'ENTRYPOINT ["wattrate"]' in lines


def test_rules_and_dashboard_ask_for_metrics_that_exist() -> None:
    pages = ("watch/pages.py", "rate/progress.py", "commands/verify.py", "commands/archive.py")
    told = "".join((DEPLOY.parent / "pipeline" / page).read_text("utf-8") for page in pages)
    asked = [*(DEPLOY / "prometheus").glob("*.yml"), *(DEPLOY / "grafana").glob("*.json")]
    assert len(asked) == 3
    for path in asked:
        for name in re.findall(r"\bwattrate_\w+", path.read_text("utf-8")):
            assert f'"{name}"' in told, f"{path.name} asks for {name}"
