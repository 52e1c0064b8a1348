"""Real packages, made on the spot: wheels by zipfile, and source distributions whose build backend we write."""

import base64
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Sequence


def wheel_files(name: str, version: str, requires: Sequence[str] = (), extras: Sequence[str] = ()) -> dict[str, str]:
    """Return the files of a package with one module, ``VERSION`` in it, and a console script."""
    info = f"{name}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {text}" for text in requires]
    files = {
        f"{name}.py": f"VERSION = {version!r}\n\ndef main():\n    print(VERSION)\n",
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-say = {name}:main\n",
    }
    record = [f"{path},sha256={_digest(text)},{len(text.encode())}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    return files


def make_wheel(
    directory: str, name: str, version: str, requires: Sequence[str] = (), extras: Sequence[str] = ()
) -> str:
    """Write a wheel into ``directory`` and return its path."""
    path = os.path.join(directory, f"{name}-{version}-py3-none-any.whl")
    with zipfile.ZipFile(path, "w") as wheel:
        for inner, text in wheel_files(name, version, requires, extras).items():
            wheel.writestr(inner, text)
    return path


def install_by_hand(directory: str, name: str, version: str, requires: Sequence[str] = (), extras: Sequence[str] = ()):
    """Lay the package out in ``directory`` as an installer would."""
    for inner, text in wheel_files(name, version, requires, extras).items():
        path = os.path.join(directory, inner)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)


def make_source(directory: str, name: str, version: str, before_build: str) -> str:
    """Write a source distribution that runs ``before_build`` (Python) when a wheel is built of it; return its path."""
    backend = (
        f"import zipfile\nFILES = {wheel_files(name, version)!r}\n"
        "def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):\n"
        + "".join(f"    {line}\n" for line in before_build.splitlines())
        + f"    filename = '{name}-{version}-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(wheel_directory + '/' + filename, 'w') as wheel:\n"
        "        for inner, text in FILES.items():\n"
        "            wheel.writestr(inner, text)\n"
        "    return filename\n"
    )
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "pyproject.toml": project,
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    path = os.path.join(directory, f"{name}-{version}.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        for inner, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{inner}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
