"""freezelab freezes real guests the way a cloud does, and measures what they felt.

A run
    1. The playbook is read and checked, and what this machine lacks for it is named.
    2. What a killed run left is cleared away; images, golden guests and emulators are made ready.
    3. Guests start, and are set to time; a mechanism is installed in each.
    4. Clocks are read from outside and inside, until they are known well.
    5. The maintenance is announced, and waited for.
    6. The guests are frozen, with a dead-man and a budget.
    7. The host is patched, and the guests are resumed.
    8. Their clocks are watched coming back; what was seen inside is fetched.
    9. Guests are removed; the history is judged, the record written, the report printed.

lab.core.terms is the glossary, which `freezelab explain` prints. docs/architecture.md has these steps as a
picture; docs/measuring.md says how things are measured.
"""

__version__ = "0.1.0"
