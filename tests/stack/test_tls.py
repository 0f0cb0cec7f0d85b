"""HTTPS: protocol versions, a mounted certificate, and the generated and renewed one."""

import pathlib
import socket
import ssl
import subprocess

import httpx
import pytest

from support import DEADLINE_SECONDS, PROGRAM, assert_problem, reply, request, until

MONTH = 30 * 24 * 3600


def ok(connection, _head):
    reply(connection)


def make_certificate(folder, days):
    key, certificate = folder / "tls.key", folder / "tls.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", str(days), "-subj", "/CN=mounted.example", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def shake_hands(port, **limits):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in limits.items():
        setattr(context, name, value)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", port), 30) as plain, context.wrap_socket(plain) as secure:
        return secure.version(), secure.selected_alpn_protocol(), secure.getpeercert(binary_form=True)


def seconds_left(port):
    """The remaining validity of the served certificate, according to openssl."""
    certificate = ssl.DER_cert_to_PEM_cert(shake_hands(port)[2])

    def outlives(seconds):
        check = ["openssl", "x509", "-noout", "-checkend", str(seconds)]
        return subprocess.run(check, input=certificate, text=True, capture_output=True).returncode == 0

    low, high = 0, 400 * 24 * 3600
    while high - low > 3600:
        middle = (low + high) // 2
        low, high = (middle, high) if outlives(middle) else (low, middle)
    return low


def reload(server):
    return subprocess.run(
        [PROGRAM, "nginx", "reload"],
        env=server.environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_without_a_certificate_there_is_no_https(nginx):
    server = nginx(ok)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.https_port), 5)


def test_http2_and_http1_over_a_self_signed_certificate(nginx):
    server = nginx(ok, TLS_SELF_SIGNED="true")
    for http2, version in ((True, "HTTP/2"), (False, "HTTP/1.1")):
        with httpx.Client(http2=http2, verify=False, timeout=DEADLINE_SECONDS) as client:
            answer = client.get(f"https://localhost:{server.https_port}/")
            assert (answer.status_code, answer.http_version) == (200, version)
            # A browser would remember it and reject the next self-signed certificate.
            assert "strict-transport-security" not in answer.headers
    assert all("x-forwarded-proto: https" in head.lower() for head in server.stand_in.requests)


def test_errors_over_http2_are_problems_too(nginx):
    server = nginx(ok, TLS_SELF_SIGNED="true", MAX_BODY_BYTES=1024)
    with httpx.Client(http2=True, verify=False, base_url=f"https://localhost:{server.https_port}", timeout=DEADLINE_SECONDS) as client:
        for answer, status, code in (
            (client.post("/x", content=b"a" * 1025), 413, "body-too-large"),
            (client.request("TRACE", "/x"), 405, "method-not-allowed"),
        ):
            assert answer.http_version == "HTTP/2"
            assert answer.headers["content-type"] == "application/problem+json"
            assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("version", "spoken"),
    [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")],
)
def test_tls_1_2_and_1_3_are_spoken(nginx, version, spoken):
    server = nginx(ok, TLS_SELF_SIGNED="true")
    shaken = shake_hands(server.https_port, minimum_version=version, maximum_version=version)
    assert shaken[:2] == (spoken, "h2")


@pytest.mark.parametrize("flag", ["-tls1", "-tls1_1"])
def test_older_versions_are_refused(nginx, flag):
    server = nginx(ok, TLS_SELF_SIGNED="true")
    # @SECLEVEL=0: otherwise the client itself does not offer them.
    done = subprocess.run(
        ["openssl", "s_client", flag, "-cipher", "ALL:@SECLEVEL=0", "-connect", f"127.0.0.1:{server.https_port}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode != 0
    assert "alert protocol version" in done.stderr, done.stderr


def test_ciphers_without_forward_secrecy_are_refused(nginx):
    server = nginx(ok, TLS_SELF_SIGNED="true")
    for cipher in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AES256-GCM-SHA384"):
        done = subprocess.run(
            ["openssl", "s_client", "-tls1_2", "-cipher", cipher, "-connect", f"127.0.0.1:{server.https_port}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        assert done.returncode != 0, cipher


def test_no_session_ticket_is_given_in_tls_1_2(nginx):
    server = nginx(ok, TLS_SELF_SIGNED="true")
    done = subprocess.run(
        ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{server.https_port}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert "Protocol  : TLSv1.2" in done.stdout
    assert "TLS session ticket:" not in done.stdout


def test_the_self_signed_certificate_names_this_machine_and_its_key_is_private(nginx):
    server = nginx(ok, TLS_SELF_SIGNED="true")
    file = server.run_dir / "tls" / "self-signed.pem"
    assert file.stat().st_mode & 0o077 == 0
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", file], capture_output=True, text=True, check=True
    ).stdout
    assert "DNS:localhost, IP Address:127.0.0.1" in shown
    assert [entry.name for entry in file.parent.iterdir()] == ["self-signed.pem"]
    # A client that trusts the certificate accepts it.
    with httpx.Client(verify=ssl.create_default_context(cafile=file), timeout=DEADLINE_SECONDS) as client:
        assert client.get(f"https://localhost:{server.https_port}/").status_code == 200


def test_the_self_signed_certificate_is_kept_over_restarts(nginx, directory):
    kept = directory / "kept"
    first = nginx(ok, TLS_SELF_SIGNED="true", TLS_DIR=kept)
    certificate = shake_hands(first.https_port)[2]
    first.stop()
    second = nginx(ok, TLS_SELF_SIGNED="true", TLS_DIR=kept)
    assert shake_hands(second.https_port)[2] == certificate


def near_its_end(folder):
    """A self-signed certificate like that of `pycrudapi nginx`, but valid for only ten more days."""
    folder.mkdir(exist_ok=True)
    certificate, key = make_certificate(folder, days=10)
    both = folder / "self-signed.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    key.unlink(), certificate.unlink()


def test_a_self_signed_certificate_near_its_end_is_renewed_at_start(nginx, directory):
    near_its_end(directory / "kept")
    server = nginx(ok, TLS_SELF_SIGNED="true", TLS_DIR=directory / "kept")
    assert seconds_left(server.https_port) > 2 * MONTH


def test_a_self_signed_certificate_near_its_end_is_renewed_while_nginx_runs(nginx, directory):
    kept = directory / "kept"
    server = nginx(ok, TLS_SELF_SIGNED="true", TLS_DIR=kept)
    before = shake_hands(server.https_port)[2]
    done = reload(server)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert shake_hands(server.https_port)[2] == before
    near_its_end(kept)
    done = reload(server)
    assert (done.returncode, done.stdout) == (0, "nginx was reloaded: its certificate has changed\n"), done
    until(lambda: shake_hands(server.https_port)[2] != before, "the new certificate is served")
    assert seconds_left(server.https_port) > 2 * MONTH
    assert server.request("GET", "/").status == 200


def test_a_broken_self_signed_certificate_is_replaced(nginx, directory):
    kept = directory / "kept"
    kept.mkdir()
    (kept / "self-signed.pem").write_text("not a certificate")
    server = nginx(ok, TLS_SELF_SIGNED="true", TLS_DIR=kept)
    assert seconds_left(server.https_port) > 2 * MONTH


def test_a_mounted_certificate_is_served_with_hsts_and_wins_over_a_self_signed_one(nginx, directory):
    certificate, key = make_certificate(directory, days=100)
    server = nginx(ok, TLS_CERT=certificate, TLS_KEY=key, TLS_SELF_SIGNED="true")
    with httpx.Client(http2=True, verify=False, timeout=DEADLINE_SECONDS) as client:
        answer = client.get(f"https://localhost:{server.https_port}/")
    assert answer.headers["strict-transport-security"] == "max-age=63072000"
    assert shake_hands(server.https_port)[2] == ssl.PEM_cert_to_DER_cert(certificate.read_text())
    # The header has no meaning over plain HTTP, where any client can set it.
    assert "strict-transport-security" not in server.request("GET", "/").headers
    assert not (server.run_dir / "tls").exists()


def test_a_mounted_certificate_that_was_replaced_is_picked_up(nginx, directory):
    certificate, key = make_certificate(directory, days=100)
    server = nginx(ok, TLS_CERT=certificate, TLS_KEY=key)
    before = shake_hands(server.https_port)[2]
    make_certificate(directory, days=200)
    assert reload(server).returncode == 0
    until(lambda: shake_hands(server.https_port)[2] != before, "the new certificate is served")


def test_a_replaced_certificate_that_cannot_be_used_changes_nothing(nginx, directory):
    certificate, key = make_certificate(directory, days=100)
    server = nginx(ok, TLS_CERT=certificate, TLS_KEY=key)
    before = shake_hands(server.https_port)[2]
    pathlib.Path(certificate).write_text("not a certificate")
    done = reload(server)
    assert done.returncode == 1 and "keeps using the old one" in done.stderr, done
    assert shake_hands(server.https_port)[2] == before


def test_errors_on_both_ports_are_the_same(nginx):
    server = nginx(TLS_SELF_SIGNED="true")
    assert_problem(request(server.port, "GET", "/x"), 502, "bad-gateway")
    with httpx.Client(verify=False, timeout=DEADLINE_SECONDS) as client:
        answer = client.get(f"https://localhost:{server.https_port}/x")
    assert (answer.status_code, answer.json()["code"]) == (502, "bad-gateway")
