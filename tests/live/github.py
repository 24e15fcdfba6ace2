"""Runs the jobs of a generated workflow on this machine, as GitHub would: its steps in bash, on a clone of the commit.

An action is left out but for the checkout: what it would install is here, and there is no cloud to log in to.
"""

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TOKEN = re.compile(r"'[^']*'|&&|\|\||!=|!|\w+\(\)|[a-z_]+(?:\.\w+)+|true")
WORDS = {"&&": " and ", "||": " or ", "!": " not ", "!=": "!=", "true": "True"}


@dataclass
class Environment:
    """What GitHub keeps for an environment, or for the repository itself."""

    secrets: dict[str, str] = field(default_factory=dict)
    vars: dict[str, str] = field(default_factory=dict)


@dataclass
class GitHub:
    """A repository with its workflows, environments and releases that wait for a reviewer.

    Attributes:
        work: where the runner checks out, a clone
        env: the environment of the runner, with the programs that stand in for others
        stand_ins: a command of a step -> what is run in its place
        told: all that any step printed
    """

    work: Path
    env: dict[str, str]
    repository: Environment
    environments: dict[str, Environment]
    stand_ins: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def __call__(
        self,
        workflow: str,
        event: str,
        *,
        sha: str,
        jobs: tuple[str, ...] = (),
        passed: tuple[str, ...] = (),
        **context: Any,
    ) -> dict[str, str]:
        """Run the jobs of a workflow for an event; return how each ended.

        Args:
            sha: the commit that the event is about
            jobs: only these, as if the others waited for a reviewer; all, if there are none
            passed: those that are taken to have succeeded without being run
            context: `inputs` and `github.event` beyond the event's name, by their names in expressions
        """
        git(self.work, "fetch", "--quiet", "origin")
        git(self.work, "checkout", "--quiet", "--detach", sha)
        content = yaml.safe_load((self.work / f".github/workflows/{workflow}.yml").read_text())
        results: dict[str, str] = {}
        known = {
            "github.event_name": event,
            "github.sha": sha,
            "github.run_attempt": "1",
            "github.actor": "me",
            "github.token": "ghs_hush",
        } | context
        for name, job in content["jobs"].items():
            needs = [job.get("needs", [])] if isinstance(job.get("needs", []), str) else job.get("needs", [])
            ended = {results.get(one, "skipped") for one in needs}
            known["failure()"] = bool(ended & {"failure", "not run"})
            held = self.environments.get(job.get("environment", ""), Environment())
            known |= {f"secrets.{key}": value for key, value in (self.repository.secrets | held.secrets).items()}
            known |= {f"vars.{key}": value for key, value in (self.repository.vars | held.vars).items()}
            condition = str(job.get("if", "true"))
            waits = ended - {"success"} and not re.search(r"\b(failure|cancelled)\(\)", condition)
            if waits or not self.value(condition, known):
                results[name] = "not run" if known["failure()"] else "skipped"
            elif name in passed:
                results[name] = "success"
            elif jobs and name not in jobs:
                results[name] = "not run"
            else:
                results[name] = self.run(job, content.get("env", {}) | job.get("env", {}), known)
            known[f"needs.{name}.result"] = results[name]
            for output, text in job.get("outputs", {}).items():
                known[f"needs.{name}.outputs.{output}"] = self.filled(text, known)
            known = {key: value for key, value in known.items() if not key.startswith(("secrets.", "vars.", "steps."))}
        return results

    def run(self, job: dict[str, Any], env: dict[str, Any], known: dict[str, Any]) -> str:
        temporary = self.work.parent / "runner"
        for step in job["steps"]:
            if not self.value(str(step.get("if", "true")), known):
                continue
            if step.get("uses", "").startswith("actions/checkout@"):
                commit = self.filled(step["with"].get("ref", known["github.sha"]), known)
                git(self.work, "checkout", "--quiet", "--detach", commit)
            if "run" not in step:
                continue
            temporary.mkdir(exist_ok=True)
            output = temporary / "output"
            output.write_text("")
            given = {key: self.filled(value, known) for key, value in (env | step.get("env", {})).items()}
            given |= {
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(temporary / "summary"),
                "GITHUB_REPOSITORY": "me/my-flows",
                "GITHUB_SHA": known["github.sha"],
                "GITHUB_REF_NAME": "a-branch",
                "RUNNER_TEMP": str(temporary),
            }
            done = subprocess.run(
                ["bash", "-e", "-c", self.stand_ins.get(step["run"], step["run"])],
                cwd=self.work,
                env=self.env | given,
                capture_output=True,
                text=True,
                timeout=900,
            )
            self.told.append(f"$ {step['run']}\n{done.stdout}{done.stderr}")
            known |= {f"steps.{step.get('id')}.outputs.{name}": text for name, text in outputs(output.read_text())}
            if done.returncode:
                return "failure"
        return "success"

    def filled(self, text: Any, known: dict[str, Any]) -> str:
        return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(self.value(found[1], known)), str(text))

    def value(self, expression: str, known: dict[str, Any]) -> Any:
        """Return the value of an expression; what is not known is empty, as on GitHub."""

        def word(found: re.Match[str]) -> str:
            token = found[0]
            if token.startswith("'"):
                return repr(token[1:-1])
            return WORDS.get(token) or repr(known.get(token, ""))

        plain = " ".join(re.sub(r"^\$\{\{|\}\}$", "", expression.strip()).split())
        return eval(TOKEN.sub(word, plain))  # noqa: S307 - of our own workflows


def outputs(text: str) -> list[tuple[str, str]]:
    """Return what a step wrote to $GITHUB_OUTPUT: `name=text`, or `name<<END`, lines, END."""
    lines = [(name, body.rstrip("\n")) for name, _, body in re.findall(r"(?ms)^(\w+)<<(\S+)\n(.*?)^\2$", text)]
    return lines or re.findall(r"(?m)^(\w+)=(.*)$", text)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
