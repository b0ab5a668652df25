"""A campaign of faults: the command as people start it, something done to it at one of its steps, and a look
from outside at what became of the guest, its disk, the machine and the verdict.

    python -m tests.campaign --cases 100 --seed 1 --jobs 3 campaign.jsonl
    python -m tests.campaign --table campaign.jsonl

Every case has a place of its own (worker.py): mount, network and process namespaces, and a state folder in
memory. What is left there afterwards was left by the lab, and nothing that is done there reaches this
machine. Root only.
"""
