"""The container's files, read: they agree with the package, with each other and with the Space."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines)]


def of(name: str) -> list[str]:
    return [rest for kind, rest in instructions() if kind == name]


def copied() -> set[str]:
    """What the build takes from the repository."""
    words = [shlex.split(rest) for rest in of("COPY") if "--from" not in rest]
    return {source for each in words for source in each[:-1]}


def constraint(name: str) -> str:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{name}==(.+)$", text, re.M)
    assert found, name
    return found[1]


def compose() -> dict:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["services"]["ragbook"]


def card() -> dict:
    _, head, _ = (ROOT / "deploy" / "space" / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head)


def test_everything_copied_exists_and_nothing_else_is_sent():
    assert copied()
    assert all((ROOT / name).exists() for name in copied())
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == copied()


def test_what_the_package_is_built_from_is_copied():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    modules = re.findall(r'^py-modules = \["(.+)"\]$', project, re.M)
    named = re.findall(r'"(LICENSE[\w-]*)"', project) + re.findall(
        r'^readme = "(.+)"$', project, re.M
    )
    assert modules
    assert {f"{module}.py" for module in modules} | set(named) | {"ragbook"} <= copied()


def test_versions_are_those_that_are_tested():
    pins = [pin for rest in of("RUN") for pin in re.findall(r"(\w[\w-]*)==(\S+)", rest)]
    assert [name for name, _ in pins] == ["torch"]
    assert all(version == constraint(name) for name, version in pins)
    installs = [rest for rest in of("RUN") if "uv pip install" in rest]
    assert installs
    for rest in installs:
        assert "--constraint constraints.txt" in rest
        assert "--torch-backend cpu" in rest
    tested = (ROOT / ".binder" / "runtime.txt").read_text(encoding="utf-8").strip()
    assert {rest.split()[0] for rest in of("FROM")} == {f"{tested.replace('-', ':')}-slim"}


def test_it_does_not_run_as_root_and_holds_no_secret():
    kinds = [kind for kind, _ in instructions()]
    assert of("USER") == ["ragbook"]
    assert kinds.index("USER") < kinds.index("CMD")
    assert not [rest for rest in of("ENV") + of("ARG") if "TOKEN" in rest]
    assert "--token" not in of("CMD")[0]
    assert str(compose()["environment"]["RAGBOOK_TOKEN"]).startswith("${RAGBOOK_TOKEN:?")


def test_the_port_is_the_same_everywhere():
    (port,) = of("EXPOSE")
    command = of("CMD")[-1]
    assert f'"--port", "{port}"' in command
    assert port in of("HEALTHCHECK")[0]
    assert compose()["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert str(card()["app_port"]) == port


def test_the_space_runs_the_dockerfile():
    assert card()["sdk"] == "docker"
    assert len(card()["short_description"]) <= 60


@pytest.mark.skipif(
    not (ROOT / "ragbook" / "serve").exists(), reason="this version has no `ragbook serve`"
)
def test_the_command_is_one_that_ragbook_has():
    from ragbook.cli.parser import new_parser

    program, *arguments = yaml.safe_load(of("CMD")[-1])
    assert program == "ragbook"
    new_parser().parse_args(arguments)
