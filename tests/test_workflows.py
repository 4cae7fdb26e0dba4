"""What GitHub is asked to do: the steps that can be done here, done here."""

import re
import subprocess

import pytest
import yaml
from book_fixtures import PROJECT

WORKFLOWS = sorted((PROJECT / ".github/workflows").glob("*.yml"))
every_workflow = pytest.mark.parametrize(
    "path", WORKFLOWS, ids=lambda path: path.stem
)


def steps(path):
    workflow = yaml.safe_load(path.read_text())
    return [s for job in workflow["jobs"].values() for s in job["steps"]]


@every_workflow
def test_make_targets_and_files_exist(path):
    commands = "\n".join(step.get("run", "") for step in steps(path))
    targets = re.findall(r"make (\w+)", commands)
    assert targets
    makefile = (PROJECT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
    for name in re.findall(r"\btests/\w+\.py", commands):
        assert (PROJECT / name).exists()


@every_workflow
def test_no_secret_reaches_a_command_line(path):
    """GitHub pastes ${{ }} into scripts; variables are safe."""
    for step in steps(path):
        assert "${{" not in step.get("run", "")


def test_pages_are_published(tmp_path):
    (publish,) = (
        step["run"]
        for step in steps(PROJECT / ".github/workflows/publish.yml")
        if step.get("name") == "Publish"
    )
    remote = tmp_path / "remote"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    project = tmp_path / "project"
    for name in ("html/index.html", "html/_static/sr.css", "book.pdf"):
        path = project / "_build" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    variables = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "REMOTE": str(remote),
        "GITHUB_ACTOR": "someone",
        "GITHUB_SHA": "0123abc",
    }
    subprocess.run(
        ["bash", "-e", "-c", publish], cwd=project, env=variables, check=True
    )
    there = subprocess.run(
        ["git", "-C", remote, "ls-tree", "-r", "--name-only", "gh-pages"],
        text=True,
        capture_output=True,
        check=True,
    ).stdout.split()
    wanted = [".nojekyll", "_static/sr.css", "book.pdf", "index.html"]
    assert sorted(there) == wanted
