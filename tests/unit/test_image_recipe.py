"""Recipes and their digests."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from lab.errors import ImageError
from lab.image import recipe as recipes
from lab.image.recipe import folder_digest, hooks, load_recipe, overlay_tar, recipe_names

IMAGES = Path(__file__).resolve().parents[2] / "images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(IMAGES / "debian", tmp_path / "debian"))


def test_shipped_recipe_loads() -> None:
    assert "debian" in recipe_names(IMAGES)
    recipe = load_recipe(IMAGES / "debian")
    assert {"openssh-server", "chrony", "qemu-guest-agent", "python3"} <= set(recipe.packages)
    assert "systemd-timesyncd" not in recipe.packages  # it would push chrony out
    assert len(hooks(recipe.layers[0].folder)) == len(list((IMAGES / "debian/hooks").glob("*.sh")))


def test_shipped_recipe_leaves_the_clocks_alone() -> None:
    words = load_recipe(IMAGES / "debian").cmdline.split()
    for measured in (
        "tsc",
        "clocksource",
        "nohz",
        "nowatchdog",
        "nosoftlockup",
        "no-kvmclock",
        "hpet",
        "lapic",
    ):
        assert not [word for word in words if word.split("=")[0].startswith(measured)]


def test_digest_is_of_the_contents_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / "debian")
    assert folder_digest(folder) == folder_digest(elsewhere) == load_recipe(folder).digest


def test_digest_ignores_readme_umask_and_editors(folder: Path) -> None:
    before = folder_digest(folder)
    (folder / "recipe.toml").chmod(0o600)
    (folder / "recipe.toml~").write_text("left by an editor")
    (folder / "README.md").write_text("another figure")
    (folder / "empty").mkdir()
    assert folder_digest(folder) == before


def _edit(folder: Path) -> None:
    with (folder / "files/etc/ssh/sshd_config").open("a") as file:
        file.write("\n")


def _add(folder: Path) -> None:
    (folder / "files/etc/new").write_text("")


def _rename(folder: Path) -> None:
    (folder / "hooks/10-units.sh").rename(folder / "hooks/11-units.sh")


def _remove(folder: Path) -> None:
    (folder / "hooks/10-units.sh").unlink()


def _executable(folder: Path) -> None:
    (folder / "files/usr/lib/freezelab/init").chmod(0o644)


def _link(folder: Path) -> None:
    (folder / "files/etc/new").symlink_to("ssh")


@pytest.mark.parametrize("change", [_edit, _add, _rename, _remove, _executable, _link])
def test_digest_sees_every_change(folder: Path, change: object) -> None:
    before = folder_digest(folder)
    assert callable(change)
    change(folder)
    assert folder_digest(folder) != before


def test_digest_sees_the_format(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folder_digest(folder)
    monkeypatch.setattr(recipes, "FORMAT", recipes.FORMAT + 1)
    assert folder_digest(folder) != before


def test_content_cannot_move_between_files(tmp_path: Path) -> None:
    """Two folders whose names and contents run together to the same bytes."""
    for name, files in {"one": {"a": "b", "c": "d"}, "two": {"a": "bc", "d": ""}}.items():
        for file, content in files.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file).write_text(content)
    assert folder_digest(tmp_path / "one") != folder_digest(tmp_path / "two")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('suite = "bookworm"', "suite = 12", "suite"),
        ('suite = "bookworm"', "", "suite"),
        ('disk_size = "2GiB"', 'disk_size = "2"', "disk_size"),
        ('suite = "bookworm"', 'suite = "bookworm"\nsiute = "x"', "siute"),
        ('suite = "bookworm"', "suite = ", "cannot be read"),
        ('"kmod",', "7,", "packages"),
    ],
)
def test_broken_recipe_says_where(folder: Path, old: str, new: str, said: str) -> None:
    path = folder / "recipe.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ImageError) as caught:
        load_recipe(folder)
    assert said in caught.value.what
    assert caught.value.where == str(path)


@pytest.fixture
def own(folder: Path) -> Path:
    """A recipe of the user's own that extends the shipped one."""
    own = folder.parent / "own"
    own.mkdir()
    (own / "recipe.toml").write_text('extends = "debian"\npackages = ["redis-server", "kmod"]\n')
    return own


def test_a_recipe_adds_to_what_it_extends_and_replaces_the_rest(own: Path, folder: Path) -> None:
    with (own / "recipe.toml").open("a") as file:
        file.write('exclude = ["/opt/*"]\nabout = "mine"\ndisk_size = "4GiB"\nenable = ["redis-server"]\n')
    base, recipe = load_recipe(folder), load_recipe(own)
    assert recipe.name == "own"
    assert recipe.packages == (*base.packages, "redis-server")
    assert recipe.exclude == (*base.exclude, "/opt/*")
    assert (recipe.about, recipe.disk_bytes) == ("mine", 4 << 30)
    assert (recipe.suite, recipe.cmdline, recipe.build_bytes) == (base.suite, base.cmdline, base.build_bytes)
    assert [layer.folder for layer in recipe.layers] == [folder, own]
    assert [layer.enable for layer in recipe.layers] == [(), ("redis-server",)]


def test_an_extension_may_leave_packages_out(own: Path, folder: Path) -> None:
    with (own / "recipe.toml").open("a") as file:
        file.write('without = ["chrony"]\n')
    recipe = load_recipe(own)
    assert set(load_recipe(folder).packages) - set(recipe.packages) == {"chrony"}
    assert "redis-server" in recipe.packages


def test_the_generic_image_has_another_kernel() -> None:
    kernels = [name for name in load_recipe(IMAGES / "debian-generic").packages if name.startswith("linux-")]
    assert kernels == ["linux-image-amd64"]


def test_newer_suites_are_made_by_the_same_recipe() -> None:
    older, newer, newest = (load_recipe(IMAGES / name) for name in ("debian", "debian-13", "debian-testing"))
    assert [one.suite for one in (older, newer, newest)] == ["bookworm", "trixie", "testing"]
    assert newest.layers[:2] == newer.layers
    assert newer.layers[:1] == older.layers
    assert newest.cmdline == older.cmdline


def test_an_extension_may_be_extended_by_its_path(own: Path, tmp_path: Path) -> None:
    (tmp_path / "books/third").mkdir(parents=True)
    third = tmp_path / "books/third"
    (third / "recipe.toml").write_text('extends = "../../own"\npackages = ["nginx"]\n')
    recipe = load_recipe(third, own.parent)
    assert [layer.folder.resolve().name for layer in recipe.layers] == ["debian", "own", "third"]
    assert {"openssh-server", "redis-server", "nginx"} <= set(recipe.packages)


def test_a_digest_is_also_of_what_is_extended(own: Path, folder: Path) -> None:
    first = load_recipe(own).digest
    _edit(folder)
    second = load_recipe(own).digest
    (own / "hooks").mkdir()
    (own / "hooks/50-app.sh").write_text("true\n")
    assert len({first, second, load_recipe(own).digest, folder_digest(own)}) == 4


def test_packages_make_another_image(folder: Path) -> None:
    plain = load_recipe(folder)
    more = plain.with_packages(["redis-server", "g++", "kmod"])
    assert more.name == "debian-with-g__-redis-server"
    assert more.packages == (*plain.packages, "g++", "redis-server")
    assert more == plain.with_packages(["g++", "redis-server"])
    assert more.digest not in (plain.digest, plain.with_packages(["g++"]).digest)
    assert plain.with_packages(["kmod"]) is plain
    assert len(plain.with_packages([f"package-{n}" for n in range(50)]).name) <= 60


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extends = "own"', "it extends itself, by way of 'own'"),
        ('extends = "./"', "it extends itself"),
        ('extends = "other"', "it extends itself, by way of 'own'"),
        ('extends = "debianx"', "it extends 'debianx', which is no recipe"),
        ('extends = "../nowhere"', "it extends '../nowhere', which is no recipe"),
        ("extends = 7", "extends is missing or not a string"),
        ('extends = "debian"\nenable = "x"', "enable is not a list of strings"),
        ('extends = "debian"\ndisk_size = "big"', "disk_size"),
        ('extends = "debian"\nwithout = ["emacs"]', "without emacs, which what it extends does not have"),
    ],
)
def test_a_broken_extension_says_where(own: Path, text: str, said: str) -> None:
    other = own.parent / "other"
    other.mkdir()
    (other / "recipe.toml").write_text('extends = "own"\n')
    (own / "recipe.toml").write_text(text)
    with pytest.raises(ImageError) as caught:
        load_recipe(own)
    assert said in caught.value.what
    assert Path(caught.value.where).name == "recipe.toml"


def test_a_folder_whose_name_cannot_be_an_images(own: Path) -> None:
    with pytest.raises(ImageError, match="an image cannot be named 'My Image'"):
        load_recipe(own.rename(own.parent / "My Image"), own.parent)


def test_overlay_belongs_to_root_with_plain_modes(folder: Path) -> None:
    (folder / "files/etc/ssh/sshd_config").chmod(0o660)
    first = overlay_tar(folder / "files")
    assert first == overlay_tar(folder / "files")
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        members = {member.name: member for member in tar}
    assert members["etc/ssh/sshd_config"].mode == 0o644
    assert members["usr/lib/freezelab/init"].mode == 0o755
    assert {(m.uid, m.gid, m.mtime) for m in members.values()} == {(0, 0, 0)}
