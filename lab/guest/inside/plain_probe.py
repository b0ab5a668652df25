"""The probe, and nothing else; see clock_probe.py."""

from lab.guest.inside.clock_probe import ClockProbe, run_probe


def main() -> None:
    run_probe(ClockProbe)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
