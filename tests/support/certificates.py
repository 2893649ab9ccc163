"""A certificate authority and a certificate for 127.0.0.1, made by the openssl program."""

from __future__ import annotations

import subprocess
from pathlib import Path

EXTENSIONS = "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n"


def make_certificates(folder: Path) -> Path:
    """Write ca.crt, server.crt and server.key into `folder`, valid for a day; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "extensions").write_text(EXTENSIONS)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        folder,
        *["req", "-x509", *key, "-days", "1", "-subj", "/CN=test authority"],
        *["-keyout", "ca.key", "-out", "ca.crt"],
    )
    _openssl(
        folder, "req", *key, "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr"
    )
    _openssl(
        folder,
        *["x509", "-req", "-days", "1", "-in", "server.csr", "-extfile", "extensions"],
        *["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "server.crt"],
    )
    return folder


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
