"""Keys and certificates of the test cluster, made by openssl and good for 30 days."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SERVER_NAMES = (
    "IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
)


def make_cluster_pki(folder: Path) -> None:
    """Write ca, server, admin (system:masters) and sa (token signing).

    Each is NAME.key with NAME.crt, sa with sa.pub. Raises subprocess.CalledProcessError.
    """
    make_authority(folder)
    issue(folder, "server", "/CN=kube-apiserver", f"serverAuth\nsubjectAltName={_SERVER_NAMES}")
    issue(folder, "admin", "/O=system:masters/CN=admin", "clientAuth")
    _new_key(folder / "sa.key")
    _openssl("ec", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub")


def make_node_pki(folder: Path) -> None:
    """Write server.key and server.crt for a node, and the ca that signed it."""
    make_authority(folder)
    issue(folder, "server", "/CN=fake-node", f"serverAuth\nsubjectAltName={_SERVER_NAMES}")


def make_authority(folder: Path) -> None:
    """Write ca.key and the self-signed ca.crt."""
    folder.mkdir(parents=True, exist_ok=True)
    _new_key(folder / "ca.key")
    _openssl(
        *("req", "-x509", "-new", "-key", folder / "ca.key", "-subj", "/CN=petiole-test-ca"),
        *("-days", "30", "-out", folder / "ca.crt"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )


def issue(folder: Path, name: str, subject: str, usage: str) -> None:
    """Write NAME.key and NAME.crt, signed by the folder's ca; USAGE goes on to other extensions."""
    key, request, extensions = (folder / f"{name}.{kind}" for kind in ("key", "csr", "ext"))
    _new_key(key)
    _openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
    extensions.write_text(f"extendedKeyUsage={usage}\n")
    _openssl(
        *("x509", "-req", "-in", request, "-days", "30", "-extfile", extensions),
        *("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial"),
        *("-out", folder / f"{name}.crt"),
    )
    request.unlink()
    extensions.unlink()


def _new_key(path: Path) -> None:
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
    path.chmod(0o600)


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=True)
