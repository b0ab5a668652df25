"""`freezelab events`: the metadata service alone, and the commands that drive it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli import completion
from lab.cli.commands import Commands
from lab.cli.running import JUnit
from lab.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from lab.events.client import Control

events = Commands(
    no_args_is_help=True, help="Run the metadata service without a run, and control its events."
)

LISTEN = "127.0.0.1:8169"

Name = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The service's name, when several run.")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The event's id, or its beginning.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@events.command()
def serve(
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS:PORT[=GUEST]", help=f"A guest's listener; {LISTEN}=web-0 by default."),
    ] = None,
    inside: Annotated[
        list[str] | None,
        typer.Option(
            "--in", metavar="GUEST", help="A kept guest, which gets the service at 169.254.169.254."
        ),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=GUEST,…", help="An availability set.")
    ] = None,
    scale_sets: Annotated[
        list[str] | None,
        typer.Option(
            "--scale-set",
            metavar="NAME=GUEST,…",
            help="A scale set; its guests are NAME_0, NAME_1 … in events.",
        ),
    ] = None,
    compute_names: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-name", metavar="GUEST=NAME", help="A guest's name in events; its own by default."
        ),
    ] = None,
    instance: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=VALUE", help="A value of /metadata/instance, such as compute/zone=1."),
    ] = None,
    time_factor: Annotated[
        float | None, typer.Option(metavar="N", help="Speed of the service's time; 60 by default.")
    ] = None,
    real_time: Annotated[bool, typer.Option("--real-time", help="A time factor of 1.")] = False,
    first_answer: Annotated[
        str | None, typer.Option(metavar="TIME", help="Delay of the first answer, in the service's time.")
    ] = None,
    rate_limit: Annotated[
        bool, typer.Option("--rate-limit", help="Answer 429 to more than 5 requests a second.")
    ] = False,
    cloud: Annotated[
        str, typer.Option(metavar="CLOUD", help="Whose metadata service answers: azure, gce or ec2.")
    ] = "azure",
    control: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS:PORT",
            help="The control side over TCP as well; whoever reaches it controls events.",
        ),
    ] = "",
    imdsv2: Annotated[
        bool, typer.Option("--imdsv2", help="EC2: answer 401 to requests without a session token.")
    ] = False,
    hop_limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=64, help="EC2: the most hops of a session token to a listener; 1."
        ),
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="The service's name.")] = "default",
) -> None:
    """Run the service until Ctrl-C, with a line for each occurrence."""
    from lab.core.announcement import RATE_LIMIT
    from lab.core.scheduled.cloud import Cloud
    from lab.core.scheduled.cloud_answers import CloudAnswers
    from lab.core.scheduled.ec2 import ImdsOptions
    from lab.core.scheduled.model import Rules
    from lab.process.clock import HostClock
    from lab.process.signals import Signals
    from lab.report.console import stdout_console
    from lab.report.page import Page
    from lab.report.service import Log, show_service
    from lab.session.events_service import ServiceOptions, serving
    from lab.session.listeners import Wanted
    from lab.session.paths import home

    if real_time and time_factor is not None:
        raise UsageError("--real-time is a time factor of 1: give one of the two")
    factor = 1.0 if real_time else 60.0 if time_factor is None else time_factor
    if not 0.001 <= factor <= 1e6:
        raise UsageError("between 0.001 and 1000000", where="--time-factor")
    late_s = (_duration(first_answer, "--first-answer") or 0) / 1e9
    imds = ImdsOptions(v1=not imdsv2, hop_limit=1 if hop_limit is None else hop_limit)
    answers = CloudAnswers(Cloud(_word(Cloud, cloud, "--cloud")), imds)
    if (imdsv2 or hop_limit is not None) and answers.cloud is not Cloud.EC2:
        where = "--imdsv2" if imdsv2 else "--hop-limit"
        raise UsageError("only EC2's service has session tokens", where=where, hint="--cloud ec2")
    if instance and answers.cloud is not Cloud.AZURE:
        raise UsageError("only Azure's /metadata/instance can be changed", where="--instance")
    rules = Rules(
        factor,
        most_per_second=RATE_LIMIT if rate_limit else 0,
        first_answer_s=late_s,
        enabling=answers.cloud.traits.enabling,
    )
    wanted = Wanted(sets or [], scale_sets or [], compute_names or [], instance or [])
    listeners = listen or ([] if inside else [LISTEN])
    options = ServiceOptions(name, rules, listeners, inside or [], wanted, answers, control)
    page = Page(stdout_console())
    try:
        with Signals(), serving(home(), options, HostClock()) as service:
            bound, guests, within = service.bound, service.instances, service.inside
            show_service(page, name, factor, bound, guests, service.socket, within, answers.cloud)
            if service.control:
                page.parts([f"control: {service.control}/openapi.json", "whoever reaches it controls events"])
                page.blank()
            log = Log(page)
            for entry, event in service.entries():
                log.show(entry, event)
    except Interrupted:
        page.put(("the metadata service has ended", "dim"))


@events.command()
def announce(
    guests: Annotated[list[str] | None, typer.Argument(metavar="GUEST", help="The event's guests.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="For all guests of the service.")] = False,
    kind: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Freeze, Reboot, Redeploy, Preempt or Terminate.")
    ] = "Freeze",
    notice: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Time until NotBefore, in the service's time; the type's minimum by default."
        ),
    ] = None,
    lasts: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="Finish the event by itself this long after its start."),
    ] = None,
    duration: Annotated[
        int | None,
        typer.Option(metavar="SECONDS", min=-1, help="DurationInSeconds; by default --for, else 5."),
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="The event's Description.")] = "",
    source: Annotated[str, typer.Option(metavar="SOURCE", help="Platform or User.")] = "Platform",
    answers: Annotated[
        list[str] | None,
        typer.Option(
            "--answer",
            metavar="ANSWER",
            help="The next request's answer: 404, 410, 429, 500, 503, hang, empty, plain, no-events, "
            "truncated, 'late 5s', 'document FILE', or 200 for the truth; repeatable.",
        ),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Restart the incarnation at 1.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the event has started, or with --for until it is over.")
    ] = False,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """Announce an event, one for each availability set, and print its id."""
    from lab.core.scheduled.model import EventSource, EventType
    from lab.process.clock import HostClock
    from lab.report.service import announced_line, how_to_enable, waits_for

    asked = {
        "guests": guests or [],
        "all": everyone,
        "type": _word(EventType, kind, "--type"),
        "notice_ns": _duration(notice, "--notice"),
        "over_after_ns": _duration(lasts, "--for"),
        "duration_s": duration,
        "description": description,
        "source": _word(EventSource, source, "--source"),
        "answers": [_answer_on_purpose(answer) for answer in answers or []],
        "restarts": restart,
    }
    control = _control(name)
    made = control.announce(asked)
    if as_json:
        typer.echo(json.dumps(made, indent=1))
    else:
        for one in made:
            typer.echo(announced_line(one))
    service = control.service()
    if unheard := [one for one in made if one["state"] == "unheard"]:
        typer.echo(how_to_enable(service, unheard[0]["resources"][0]), err=True)
    if wait:
        for text in waits_for(service, made):
            typer.echo(text, err=True)
    ended = control.follow(made, HostClock(), partial(typer.echo, err=True)) if wait else made
    published = [one for one in ended if one["state"] not in ("unheard", "cancelled")]
    raise typer.Exit(0 if published else 1)


@events.command()
def play(
    playbooks: Annotated[
        list[str],
        typer.Argument(
            metavar="PLAYBOOK", help="Playbooks' names or files.", autocompletion=completion.playbooks
        ),
    ],
    client: Annotated[
        str,
        typer.Option(
            metavar="COMMAND",
            help="Start this client for each guest; url, guest and handler in braces are replaced. Without "
            "it, clients are waited for.",
        ),
    ] = "",
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS:PORT=GUEST", help="A guest's listener; ports from 8169 on by default."),
    ] = None,
    wait: Annotated[str, typer.Option(metavar="TIME", help="How long a first request may take.")] = "60s",
    name: Annotated[str, typer.Option(metavar="NAME", help="The service's name.")] = "play",
    as_json: AsJson = False,
    junit: JUnit = None,
) -> None:
    """Play the announcements of playbooks without guests, one after another, and judge what clients make of
    them."""
    from lab.core.verdict import worst
    from lab.playbook import load, resolve
    from lab.process.clock import HostClock
    from lab.report.console import stdout_console
    from lab.report.page import Page
    from lab.report.service import Log, show_listeners, show_played
    from lab.session.paths import home, playbook_folders
    from lab.session.play import PlayOptions, playing

    options = PlayOptions(listen or [], client, _duration(wait, "--wait") or 0)
    page, told = Page(stdout_console()), []
    for plan in [load(resolve(one, playbook_folders())) for one in playbooks]:
        with playing(plan, options, home(), name, HostClock()) as player:
            if not as_json:
                page.parts([plan.name, plan.about], first_style="bold")
                show_listeners(page, player.bound, player.instances, player.path)
                page.blank()
            log = Log(page)
            told.append(player.play((lambda *_: None) if as_json else log.show))
        if not as_json:
            show_played(page, plan.name, told[-1].findings, told[-1].outcome)
            page.blank()
    if as_json:
        typer.echo(json.dumps([one.to_json() for one in told], indent=1))
    if junit is not None:
        from lab.report.junit import write_played_junit

        write_played_junit([(one.plan.name, one.findings) for one in told], junit)
    raise typer.Exit(worst(one.outcome for one in told).exit_code)


@events.command()
def approve(event: Id, name: Name = None) -> None:
    """Approve an event on behalf of its guests, which starts it."""
    _act("approve", event, name)


@events.command()
def start(event: Id, name: Name = None) -> None:
    """Start an event, approved or not."""
    _act("start", event, name)


@events.command()
def cancel(event: Id, name: Name = None) -> None:
    """Call off an event that has not started."""
    _act("cancel", event, name)


@events.command()
def finish(event: Id, name: Name = None) -> None:
    """Finish an event that has started."""
    _act("finish", event, name)


@events.command("list")
def list_events(
    everything: Annotated[bool, typer.Option("--all", help="Include events that are over.")] = False,
    name: Name = None,
    as_json: AsJson = False,
) -> None:
    """List events."""
    control = _control(name)
    given, service = control.events(), control.service()
    shown = [one for one in given if everything or one["state"] in ("scheduled", "started")]
    if as_json:
        typer.echo(json.dumps({**service, "events": shown}, indent=1))
        return
    from lab.report.console import stdout_console
    from lab.report.page import Page
    from lab.report.service import show_events

    show_events(Page(stdout_console()), shown, service["guests"])


# -- what is asked for -------------------------------------------------------------------------------


def _control(name: str | None) -> Control:
    from lab.events.client import Control
    from lab.session.paths import home

    return Control(home(), name)


def _act(verb: str, event: str, name: str | None) -> None:
    reply = _control(name).act(verb, event)
    typer.echo(f"{reply['id']}  {reply['type']} of {', '.join(reply['resources'])}: {reply['state']}")


def _duration(text: str | None, option: str) -> int | None:
    from lab.core.units import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error), where=option) from None


def _answer_on_purpose(text: str) -> str | dict[str, str]:
    """As the service is told it. UsageError when it is no answer, or its document cannot be read."""
    from lab.core.scheduled.model import Fault, Recorded, on_purpose

    try:
        given = on_purpose(text.lower() if "document" not in text.lower() else text, _read_document)
    except ValueError:
        known = ", ".join(fault.value for fault in Fault)
        hint = f"known: {known}, 'late 5s', 'document FILE'"
        raise UsageError(f"unknown: {text!r}", where="--answer", hint=hint) from None
    return {"name": given.name, "body": given.body} if isinstance(given, Recorded) else str(given)


def _read_document(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the document cannot be read: {error}", where=name) from None


def _word(known: Any, text: str, option: str) -> str:
    """As the enumeration writes it, in whatever case it is given."""
    for one in known:
        if one.value.lower() == text.lower():
            return str(one.value)
    raise UsageError(f"unknown: {text!r}", where=option, hint=f"known: {', '.join(o.value for o in known)}")
