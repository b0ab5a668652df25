"""A signed archive of Debian packages on the disk, which offers a QEMU."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from lab.host import emulators
from lab.host.emulators_sources import Archive, SourceEntry

OFFERED = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios", "qemu-system-gui")


@dataclass
class Mirror:
    """An archive on the disk, with one suite, "lab"."""

    folder: Path
    key: Path
    keyring: Path
    built_in: Path
    built: dict[tuple[str, str, Path], tuple[Path, str]] = field(default_factory=dict)

    def archive(self, key: Path | None = None) -> Archive:
        entry = SourceEntry((f"file:{self.folder}",), ("lab",), ("main",), str(key or self.key))
        return Archive("lab", entry, (entry,))

    def publish(self, version: str, program: Path, *, signed: bool = True, leave_out: str = "") -> None:
        """Offer a QEMU of this version, and nothing else."""
        shutil.rmtree(self.folder, ignore_errors=True)
        pool, dist = self.folder / "pool", self.folder / "dists" / "lab"
        pool.mkdir(parents=True)
        entries = [self._package(pool, name, version, program) for name in OFFERED if name != leave_out]
        packages = dist / "main" / f"binary-{ARCHITECTURE}" / "Packages"
        packages.parent.mkdir(parents=True)
        packages.write_text("\n".join(entries))
        digest, size = hashlib.sha256(packages.read_bytes()).hexdigest(), packages.stat().st_size
        release = dist / "Release"
        release.write_text(
            f"Origin: lab\nSuite: lab\nCodename: lab\nArchitectures: {ARCHITECTURE}\nComponents: main\n"
            "Date: Thu, 01 Jan 2026 00:00:00 UTC\n"
            f"SHA256:\n {digest} {size} {packages.relative_to(dist)}\n"
        )
        if signed:
            gpg(self.keyring, "--clearsign", "-o", str(dist / "InRelease"), str(release))

    def _package(self, pool: Path, name: str, version: str, program: Path) -> str:
        """Its paragraph in the index, the archive put into the pool. Archives are built once."""
        if (name, version, program) not in self.built:
            self.built[name, version, program] = self._build(name, version, program)
        archive, text = self.built[name, version, program]
        os.link(archive, pool / archive.name)
        return text

    def _build(self, name: str, version: str, program: Path) -> tuple[Path, str]:
        tree = Path(tempfile.mkdtemp(dir=self.built_in))
        control = {"Package": name, "Version": version, "Architecture": ARCHITECTURE, "Maintainer": "lab"}
        if name == "qemu-system-x86":
            control["Recommends"] = f"qemu-utils, qemu-system-gui (= {version})"
            (tree / "usr" / "bin").mkdir(parents=True)
            shutil.copy2(program, tree / "usr" / "bin" / emulators.PROGRAM)
        if name == "qemu-system-common":
            modules = next(Path("/usr/lib").glob("*-linux-gnu*/qemu"))
            shutil.copytree(modules, tree / modules.relative_to("/"))
        if name in ("seabios", "qemu-system-data"):
            share = tree / "usr" / "share" / ("qemu" if name == "qemu-system-data" else name)
            share.mkdir(parents=True)
            (share / "README").write_text("firmware would be here")
        text = "".join(f"{key}: {value}\n" for key, value in {**control, "Description": "x"}.items())
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN" / "control").write_text(text)
        archive = (
            self.built_in / f"{len(self.built)}" / f"{name}_{version.replace(':', '%3a')}_{ARCHITECTURE}.deb"
        )
        archive.parent.mkdir()
        subprocess.run(
            ["dpkg-deb", "-Znone", "--build", str(tree), str(archive)], check=True, capture_output=True
        )
        shutil.rmtree(tree)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        where = f"Filename: pool/{archive.name}\nSize: {archive.stat().st_size}\nSHA256: {digest}\n"
        return archive, text + where


ARCHITECTURE = (
    subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if shutil.which("dpkg")
    else ""
)


def gpg(home: Path, *arguments: str) -> None:
    options = ["--homedir", str(home), "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run(["gpg", *options, *arguments], check=True, capture_output=True)


def make_key(home: Path, name: str) -> Path:
    home.mkdir(mode=0o700)
    gpg(home, "--quick-gen-key", f"{name} <{name}@example.invalid>", "ed25519", "sign", "never")
    key = home.with_suffix(".asc")  # beside it: apt reads it as whoever it is
    gpg(home, "--armor", "-o", str(key), "--export")
    return key
