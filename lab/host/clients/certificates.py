"""Makes certificates at once, by openssl(1): an authority, and servers' certificates that begin now."""

from __future__ import annotations

import time
from pathlib import Path

from lab.process import runner

NAME = "freezelab.test"
LONGEST_S = 30.0
DAY_S = 86400
_CONFIG = """\
[ca]
default_ca = lab
[lab]
database = {folder}/index
new_certs_dir = {folder}
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
x509_extensions = server
[any]
commonName = supplied
[authority]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign,cRLSign
[server]
subjectAltName = DNS:{name}
"""


class Authority:
    """folder: for its files. MachineError when there is no openssl, or it fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "index").write_text("")
        (folder / "ca.cnf").write_text(_CONFIG.format(folder=folder, name=NAME))
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        # The authority itself has been there for long: only what it issues is new.
        self._openssl("req", "-new", *key, "-keyout", "ca.key", "-out", "ca.csr", "-subj", "/CN=freezelab")
        self._openssl(
            "ca", "-config", "ca.cnf", "-batch", "-notext", "-selfsign", "-keyfile", "ca.key",
            "-in", "ca.csr", "-out", "ca.crt", "-extensions", "authority",
            "-startdate", _date(-30 * DAY_S), "-enddate", _date(30 * DAY_S),
        )  # fmt: skip
        self._openssl(
            "req", "-new", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={NAME}"
        )
        self.certificate = (folder / "ca.crt").read_text()

    def issue(self, backdate_s: int) -> Path:
        """A certificate with its key, in one file, whose time began this long ago."""
        self._openssl(
            "ca", "-config", "ca.cnf", "-batch", "-notext", "-cert", "ca.crt", "-keyfile", "ca.key",
            "-in", "server.csr", "-out", "server.crt",
            "-startdate", _date(-backdate_s), "-enddate", _date(DAY_S),
        )  # fmt: skip
        both = self._folder / "server.pem"
        both.write_text((self._folder / "server.crt").read_text() + (self._folder / "server.key").read_text())
        return both

    def _openssl(self, *arguments: str) -> None:
        runner.run(["openssl", *arguments], LONGEST_S, cwd=self._folder)


def _date(from_now_s: int) -> str:
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + from_now_s))
