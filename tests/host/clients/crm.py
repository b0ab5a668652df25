#!/usr/bin/python3 -SE
"""Pacemaker's command line as azure-events-az calls it: a cluster of nodes that have attributes and run
nothing. Called as crm_attribute, crm_node, crm_resource or crm_simulate.

What is printed and returned is what the real programs of Pacemaker 3.0 (Debian 13) print on a cluster without
resources. Those of 2.1.5 (Debian 12) leave "Transition Summary:" out when nothing is to be done, and then the
azure-events-az of Debian 12 fails whenever it should approve: it expects what 1.1 printed, and 3.0 does
again. A call that the agents are not known to make is refused, and noted in the file `refused`.

FREEZELAB_CRM: the cluster's folder. nodes.json: names. attributes.json: [node or "", name] to value. calls:
every call as a line of JSON. The node that it runs on is the one of this name, the host's.
"""

import fcntl
import json
import os
import sys
from pathlib import Path

NOTHING_TO_DO = """Current cluster status:
  * Node List:
    * Online: [ {nodes} ]

  * Full List of Resources:
    * No resources

Transition Summary:
"""

EXECUTED = """
Executing Cluster Transition:

Revised Cluster Status:
  * Node List:
    * Online: [ {nodes} ]

  * Full List of Resources:
    * No resources
"""


def attribute(words: list[str], folder: Path, nodes: list[str]) -> str:
    flags = {word for word in words if word in ("--query", "--quiet", "--delete", "--lifetime=forever")}
    rest = [word for word in words if word not in flags]
    options = dict(zip(rest[::2], rest[1::2], strict=False))
    doing = {*flags, *options} & {"--query", "--delete", "--update"}
    known = options.keys() <= {"--name", "--node", "--type", "--update", "--default"}
    somewhere = options.get("--node") in nodes or options.get("--type") == "crm_config"
    if len(rest) % 2 or "--name" not in options or len(doing) != 1 or not known or not somewhere:
        raise SystemExit(64)
    name, where = options["--name"], options.get("--node", "")
    file = folder / "attributes.json"
    values = {tuple(key): value for key, value in json.loads(file.read_text())}
    if "--query" in flags:
        return f"{values.get((where, name), options.get('--default', ''))}\n"
    said = ""
    if "--update" in options:
        values[where, name] = options["--update"]
    elif values.pop((where, name), None) is not None:
        said = f"Deleted {'nodes' if where else 'crm_config'} attribute: name={name}\n"
    file.write_text(json.dumps([[list(key), value] for key, value in values.items()]))
    return said


def node(words: list[str], folder: Path, nodes: list[str]) -> str:
    if words == ["--list"]:
        return "".join(f"{number} {name} member\n" for number, name in enumerate(nodes, 1))
    if words == ["-n"]:
        return os.uname().nodename + "\n"
    raise SystemExit(64)


def resource(words: list[str], folder: Path, nodes: list[str]) -> str:
    if words[:2] != ["--list-operations", "-N"] or len(words) != 3 or words[2] not in nodes:
        raise SystemExit(64)
    pending = folder / f"pending-{words[2]}"
    return pending.read_text() if pending.exists() else ""


def simulate(words: list[str], folder: Path, nodes: list[str]) -> str:
    if words not in (["-Ls"], ["-LS"]):
        raise SystemExit(64)
    return (NOTHING_TO_DO + (EXECUTED if words == ["-LS"] else "")).format(nodes=" ".join(nodes))


PROGRAMS = {"crm_attribute": attribute, "crm_node": node, "crm_resource": resource, "crm_simulate": simulate}


def main() -> None:
    name, words, folder = Path(sys.argv[0]).name, sys.argv[1:], Path(os.environ["FREEZELAB_CRM"])
    with (folder / "calls").open("a") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)
        calls.write(json.dumps([os.uname().nodename, name, *words]) + "\n")
        calls.flush()
        nodes = json.loads((folder / "nodes.json").read_text())
        try:
            said = PROGRAMS[name](words, folder, nodes)
        except SystemExit:
            (folder / "refused").open("a").write(json.dumps([name, *words]) + "\n")
            raise
    sys.stdout.write(said)


if __name__ == "__main__":
    main()
