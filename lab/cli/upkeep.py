"""What is done to the machine and about the command itself, without a run."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer

from lab.cli import completion
from lab.cli.commands import Commands
from lab.cli.options import Connect
from lab.errors import UsageError

commands = Commands()

_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True}


@commands.command()
def recover(
    connect: Connect = None,
    keep: Annotated[bool, typer.Option("--keep", help="Resume the guests instead of removing them.")] = False,
) -> None:
    """Remove what a killed run left, or resume its guests."""
    from lab.session.recovery import recover_all

    for line in recover_all(connect, resume=keep):
        typer.echo(line)


@commands.command()
def doctor(
    connect: Connect = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks and versions as JSON.")] = False,
) -> None:
    """Check what this machine supports, and how to add what is missing."""
    from lab.session.checks import examine

    checks = examine(connect)
    if as_json:
        from lab.record.hosts_check import as_json as made
        from lab.session.machine_report import look

        typer.echo(made(look(checks)), nl=False)
    else:
        from lab.report.console import stdout_console
        from lab.report.listings import render_checks

        render_checks(checks, stdout_console())
    raise typer.Exit(0 if all(check.ok is not False for check in checks) else 4)


@commands.command()
def schema(
    what: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="playbook, hosts, run, progress, comparison or events.",
            autocompletion=completion.words("playbook", "hosts", "run", "progress", "comparison", "events"),
        ),
    ],
) -> None:
    """Print the JSON schema of playbooks, hosts files, run.json, run --json-lines or compare --json, or the
    OpenAPI document of the control socket of `events serve`."""
    if what == "playbook":
        from lab.playbook import schema_text

        typer.echo(schema_text(), nl=False)
    elif what == "hosts":
        from lab.hosts.hosts_file import hosts_schema_text

        typer.echo(hosts_schema_text(), nl=False)
    elif what == "run":
        from lab.record.run import schema as run_schema

        typer.echo(json.dumps(run_schema(), indent=1))
    elif what == "progress":
        from lab.report.progress_lines import schema as progress_schema

        typer.echo(json.dumps(progress_schema(), indent=1))
    elif what == "comparison":
        from lab.record.comparison import comparison_schema

        typer.echo(json.dumps(comparison_schema(), indent=1))
    elif what == "events":
        from lab.events.openapi import openapi

        typer.echo(json.dumps(openapi(), indent=1))
    else:
        known = "playbook, hosts, run, progress, comparison, events"
        raise UsageError(f"there is no schema {what!r}", hint=f"known: {known}")


@commands.command()
def explain(
    term: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TERM", help="A word of a report.  [default: all]", autocompletion=completion.terms
        ),
    ] = None,
) -> None:
    """Explain a word of the reports."""
    from lab.core import terms
    from lab.report.console import stdout_console
    from lab.report.glossary import render_glossary, render_terms

    if not term:
        render_glossary(stdout_console())
        return
    word = " ".join(term)
    found = terms.find(word)
    if not found:
        alike = terms.near(word)
        hint = f"perhaps: {', '.join(alike)}" if alike else "freezelab explain lists all of them"
        raise UsageError(f"there is no term {word!r}", hint=hint)
    render_terms(found, stdout_console())


@commands.command("completion")
def print_completion(
    shell: Annotated[
        str, typer.Argument(metavar="bash|zsh|fish", autocompletion=completion.words(*completion.SHELLS))
    ],
) -> None:
    """Print a script that makes a shell complete arguments at TAB."""
    if shell not in completion.SHELLS:
        raise UsageError(
            f"there is no completion for {shell!r}", hint=f"known: {', '.join(completion.SHELLS)}"
        )
    typer.echo(completion.script(shell))


@commands.command(hidden=True, context_settings=_ANYTHING)
def test() -> None:
    """The launcher's: it is not asked for here."""
    from lab.session.paths import CLONE

    where = f"{CLONE or 'in a clone: .'}/freezelab test"
    raise UsageError("the tests are run by the launcher of a clone", hint=where)


@commands.command(hidden=True, context_settings=_ANYTHING)
def uninstall() -> None:
    """The launcher's: it is not asked for here."""
    from lab.session.paths import CLONE
    from lab.session.removal import what_remains

    if CLONE is not None:
        raise UsageError("a clone is uninstalled by its launcher", hint=f"{CLONE}/freezelab uninstall")
    folders = " ".join(map(shlex.quote, map(str, what_remains())))
    remove = f"; rm -r {folders}" if folders else ""
    raise UsageError(
        "a wheel is uninstalled by what installed it; this removes everything",
        hint="freezelab nightly remove; freezelab down --all; freezelab recover; pipx uninstall freezelab"
        f"{remove}",
    )
