#!/usr/bin/env python3
"""Renders nginx's configuration from the environment and becomes nginx.

nginx cannot read its environment, so this does: each setting is checked, and a wrong one stops the start with a
sentence that names it. Everything is written below RUN_DIR. Python is here because supervisor is; only its standard
library is used, and no shell.

    start.py          render, then become nginx in the foreground
    start.py check    render and let nginx test the result
    start.py reload   renew the certificate when it is due; reload a running nginx when its certificate changed

Exit status: 2 for a wrong setting, otherwise nginx's own.
"""

import errno
import glob
import grp
import hashlib
import ipaddress
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

# Nothing is written beside the program.
sys.dont_write_bytecode = True

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "supervisor"))
import capacity  # noqa: E402
import connection_limit  # noqa: E402
import leftovers  # noqa: E402
import parent  # noqa: E402
import private  # noqa: E402

# Where an orchestrator mounts a TLS secret when TLS_CERT and TLS_KEY say nothing else.
MOUNTED_CERTIFICATE = "/etc/pycrudapi/tls/tls.crt"
MOUNTED_KEY = "/etc/pycrudapi/tls/tls.key"

# A self-signed certificate lives three months and is replaced a month before its end.
SELF_SIGNED_DAYS = 90
SELF_SIGNED_RENEW_SECONDS = 30 * 24 * 3600

# sun_path of a Unix socket address holds 108 bytes, the last of which is zero.
SOCKET_PATH_MAX_BYTES = 107

# How often a request that may be repeated is tried on a single server (proxy_next_upstream_tries says so too). More than
# two, because a killed process takes a moment to die: its other threads may accept the next try and break it as well.
SPELLINGS = 6

# supervisord.conf waits 40 s (stopwaitsecs) before it kills; a drain must be over by then.
DRAIN_TIMEOUT_MAX_MS = 30_000


class WrongSetting(Exception):
    """A setting that cannot be used: names the variable, the reason and an example."""

    def __init__(self, name, value, reason, example):
        shown = f"{name}={value}" if value else name
        super().__init__(f"{shown}: {reason}; example: {name}={example}")


# --- settings -------------------------------------------------------------------------------------------------


def whole_number(env, name, default, low, high, unit, off=False):
    """A setting that is a whole number from low to high; with `off`, the word off gives None."""
    value = env.get(name) or str(default)
    if off and value == "off":
        return None
    # isascii: int() would take digits of any script, and isdigit() even superscripts.
    if not (value.isascii() and value.isdigit() and len(value) <= 12 and low <= int(value) <= high):
        word = ", or off" if off else ""
        raise WrongSetting(name, value, f"must be a whole number of {unit} from {low} to {high}{word}", default)
    return int(value)


def choice(env, name, default, words):
    value = env.get(name) or default
    if value not in words:
        raise WrongSetting(name, value, "must be " + " or ".join(words), default)
    return value


def path(env, name, default):
    """An absolute path that needs no quoting in nginx's configuration."""
    value = env.get(name) or default
    if not re.fullmatch(r"/[A-Za-z0-9_./@+=:,~-]*", value):
        raise WrongSetting(
            name, value, "must be an absolute path of letters, digits and _ . / @ + = : , ~ -", default
        )
    return value.rstrip("/") or "/"


def comma_list(env, name):
    return [part.strip() for part in env.get(name, "").split(",") if part.strip()]


def upstream_servers(env, run_dir):
    """The `server` lines of the upstream block.

    nginx tries each entry once per request, and with a single entry there is no second try; so a single server is
    listed again, as backup, for the request whose connection broke under it. A Unix socket is spelled differently
    each time: kept connections are found by spelling, and the ones to the server that has just died must not be
    handed to the second try. `max_fails=0`, because the only server there is must not be put aside.
    """
    servers = comma_list(env, "UPSTREAM") or [f"unix:{run_dir}/pycrudapi.sock"]
    for server in servers:
        if server.startswith("unix:"):
            socket_path = path({"UPSTREAM": server[len("unix:"):]}, "UPSTREAM", "unix:/run/pycrudapi/pycrudapi.sock")
            # Room for the longer spellings below.
            if len(os.fsencode(socket_path)) + len("./") * (SPELLINGS - 1) > SOCKET_PATH_MAX_BYTES:
                name = "UPSTREAM" if env.get("UPSTREAM") else "RUN_DIR"
                raise WrongSetting(
                    name, env.get(name), "makes the path of the server's socket too long", "/run/pycrudapi"
                )
        elif not (
            (match := re.fullmatch(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", server))
            and 1 <= int(match[1]) <= 65535
        ):
            raise WrongSetting(
                "UPSTREAM", server, "must be host:port or unix:/path, several with commas", "api1:8080,api2:8080"
            )
    if len(servers) > 1:
        # One that fails twice is left alone for two seconds; the others answer meanwhile.
        return [f"server {server} max_fails=2 fail_timeout=2s;" for server in servers]
    server = servers[0]
    if not server.startswith("unix:"):
        return [f"server {server} max_fails=0;"] + (SPELLINGS - 1) * [f"server {server} max_fails=0 backup;"]
    folder, name = os.path.split(server)
    spelled = [f"server {folder}/{'./' * detour}{name} max_fails=0" for detour in range(SPELLINGS)]
    return [f"{spelled[0]};"] + [f"{other} backup;" for other in spelled[1:]]


def trusted_proxies(env):
    proxies = comma_list(env, "TRUSTED_PROXIES")
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise WrongSetting(
                "TRUSTED_PROXIES", proxy, "must be addresses or networks with commas", "10.0.0.0/8,fd00::/8"
            ) from None
    return proxies


def cors_origins(env):
    """Lines of a map from the request's origin to the one that is allowed, by the server's own setting."""
    value = (env.get("CORS_ALLOW_ORIGINS") or "").strip()
    if value == "*":
        return ['"~." "*";']
    origins = comma_list(env, "CORS_ALLOW_ORIGINS")
    for origin in origins:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+", origin):
            reason = "must be * or origins with commas, each a scheme and a host without a path"
            raise WrongSetting("CORS_ALLOW_ORIGINS", origin, reason, "https://app.example")
    return [f'"{origin}" "{origin}";' for origin in origins]


def certificate_files(env, run_dir):
    """(certificate, key, is self-signed), or None when nginx is to speak plain HTTP only."""
    given = {name: env.get(name) for name in ("TLS_CERT", "TLS_KEY")}
    if any(given.values()):
        for name, mounted in (("TLS_CERT", MOUNTED_CERTIFICATE), ("TLS_KEY", MOUNTED_KEY)):
            if not given[name]:
                raise WrongSetting(name, "", "is needed when the other half of the certificate is set", mounted)
            file = path(env, name, mounted)
            if not os.access(file, os.R_OK):
                reason = "cannot be read by this user" if os.path.exists(file) else "there is no such file"
                raise WrongSetting(name, file, reason, mounted)
        return path(env, "TLS_CERT", ""), path(env, "TLS_KEY", ""), False
    if os.access(MOUNTED_CERTIFICATE, os.R_OK) and os.access(MOUNTED_KEY, os.R_OK):
        return MOUNTED_CERTIFICATE, MOUNTED_KEY, False
    if choice(env, "TLS_SELF_SIGNED", "false", ("true", "false")) == "true":
        both = path(env, "TLS_DIR", f"{run_dir}/tls") + "/self-signed.pem"
        return both, both, True
    return None


def worker_count(env, memory_limit):
    """One worker per processor this process may use: a container's share, not the machine's count."""
    value = env.get("NGINX_WORKERS") or "auto"
    if value != "auto":
        return whole_number(env, "NGINX_WORKERS", 2, 1, 512, "processes")
    processors = len(os.sched_getaffinity(0))
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        processors = min(processors, max(1, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        pass  # no limit ("max"), or no cgroup v2
    return capacity.workers(processors, memory_limit)


def ipv6_is_there():
    """Whether an IPv6 socket can be bound; containers often have none, and nginx would refuse to start."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
        return True
    except OSError:
        return False


def settings(env, nginx):
    """Every value the templates name, from the environment."""
    run_dir = path(env, "RUN_DIR", "/tmp/pycrudapi")
    upstream = upstream_servers(env, run_dir)
    max_body = whole_number(env, "MAX_BODY_BYTES", 1_048_576, 1024, 104_857_600, "bytes")
    bulk_max_body = whole_number(env, "BULK_MAX_BYTES", 67_108_864, 1024, 1_073_741_824, "bytes")
    bulk_timeout_ms = whole_number(env, "BULK_TIMEOUT_MS", 60_000, 1000, 3_600_000, "milliseconds")
    rate = whole_number(env, "RATE_LIMIT", 1000, 1, 1_000_000, "requests per second", off=True)
    connections = whole_number(env, "CONN_LIMIT", 512, 1, 65_535, "connections", off=True)
    proxies = trusted_proxies(env)
    tls = certificate_files(env, run_dir)
    http_port = whole_number(env, "HTTP_PORT", 8080, 1, 65_535, "a TCP port")
    https_port = whole_number(env, "HTTPS_PORT", 8443, 1, 65_535, "a TCP port")
    if tls and http_port == https_port:
        raise WrongSetting("HTTPS_PORT", https_port, "must differ from HTTP_PORT", 8443)
    upstream_timeout_ms = whole_number(env, "UPSTREAM_TIMEOUT_MS", 30_000, 1, 3_600_000, "milliseconds")
    # Since 1.25.1 http/2 is a directive of its own, and the old parameter of `listen` draws a warning.
    http2_directive = nginx_version(nginx) >= (1, 25, 1)
    ipv6 = ipv6_is_there()
    memory_limit = capacity.memory_limit()
    send_buffer = capacity.send_buffer(memory_limit)
    long_bodies = capacity.long_bodies(memory_limit)
    # A file that sets TLS up is included only when there is a certificate, and so with the limits.
    return {
        "work_dir": f"{run_dir}/nginx",
        "user": worker_user(),
        "workers": worker_count(env, memory_limit),
        "worker_connections": capacity.connections(memory_limit),
        "send_buffer": send_buffer,
        "gzip_memory": capacity.gzip_memory(memory_limit),
        "drain_timeout_ms": whole_number(
            env, "DRAIN_TIMEOUT_MS", 10_000, 1, DRAIN_TIMEOUT_MAX_MS, "milliseconds"
        ),
        "access_log": {
            # Whole lines leave in one write of at most 4 KiB, which a pipe never mixes with another worker's.
            "on": "access_log /dev/stdout access buffer=4k flush=100ms if=$worth_logging;",
            "off": "access_log off;",
        }[choice(env, "ACCESS_LOG", "on", ("on", "off"))],
        "client_timeout_ms": whole_number(env, "CLIENT_TIMEOUT_MS", 10_000, 1, 3_600_000, "milliseconds"),
        "upstream_timeout_ms": upstream_timeout_ms,
        "max_body_bytes": max_body,
        # One passenger may be posted where many are.
        "bulk_max_bytes": max(max_body, bulk_max_body),
        # The server answers within its own deadline and a second; this is for one that does not.
        "bulk_timeout_ms": max(upstream_timeout_ms, bulk_timeout_ms + 5000),
        "upstream_servers": "\n        ".join(upstream),
        "http_port": http_port,
        "http_port_v6": f"listen [::]:{http_port} default_server backlog=4096{send_buffer};" if ipv6 else "",
        "limits": "include limits.conf;" if rate or connections or long_bodies else "",
        "limits_apply": "\n        ".join(
            [f"limit_req zone=requests burst={rate} nodelay;"] * bool(rate)
            + [f"limit_conn connections {connections};"] * bool(connections)
            + [f"limit_conn long_bodies {long_bodies};", f"limit_conn client_long_bodies {long_bodies // 4};"] * bool(long_bodies)
        ),
        "rate_zone": f"limit_req_zone $limited_client zone=requests:10m rate={rate}r/s;" if rate else "",
        "connection_zone": "limit_conn_zone $limited_client zone=connections:10m;" if connections else "",
        "ports": [http_port] + ([https_port] if tls else []),
        "ipv6": ipv6,
        "proxies": [ipaddress.ip_network(proxy, strict=False) for proxy in proxies],
        "set_real_ip_from": "\n".join(f"set_real_ip_from {proxy};" for proxy in proxies),
        "trusted": "\n    ".join(f"{proxy} 1;" for proxy in proxies),
        "cors_origins": "\n    ".join(cors_origins(env)),
        "tls": "include tls.conf;" if tls else "",
        "https_port": https_port,
        "listen_http2": "" if http2_directive else " http2",
        "http2": "http2 on;" if http2_directive else "",
        "https_port_v6": (
            f"listen [::]:{https_port} ssl{'' if http2_directive else ' http2'} default_server backlog=4096{send_buffer};"
            if ipv6
            else ""
        ),
        "certificate": tls[0] if tls else "",
        "certificate_key": tls[1] if tls else "",
        "self_signed": bool(tls and tls[2]),
        # Two years, as browsers ask; see forwarded.conf for the self-signed case.
        "hsts": "max-age=63072000" if tls and not tls[2] else "",
    }


def worker_user():
    """As root the workers give root up; an ordinary user has nothing to give up, and nginx warns if asked to."""
    account = private.worker()
    return f"user {account.pw_name} {grp.getgrgid(account.pw_gid).gr_name};" if account else ""


# --- nginx ----------------------------------------------------------------------------------------------------


def nginx_binary():
    # Debian keeps it in /usr/sbin, which is not on an ordinary user's PATH.
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if not found:
        sys.exit("nginx is not installed; on Debian: apt-get install nginx")
    return found


def nginx_version(nginx):
    said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", said).groups())


def render(values):
    """Writes every file of this folder to RUN_DIR/nginx and returns the path of nginx.conf."""
    work_dir = values["work_dir"]
    private.directory(os.path.dirname(work_dir), "RUN_DIR", shared=True)
    private.directory(work_dir, "RUN_DIR", shared=True)
    for source in glob.glob(f"{HERE}/*.conf") + glob.glob(f"{HERE}/*.conf.template"):
        with open(source, encoding="utf-8") as file:
            text = file.read()
        target = os.path.basename(source)
        if target.endswith(".template"):
            target = target[: -len(".template")]
            # Comments may say [[name]]; only directives are filled in. An unknown name is a KeyError: a bug here.
            text = re.sub(r"(?m)^(?!\s*#).*$", lambda line: fill(line[0], values), text)
        with open(f"{work_dir}/{target}", "w", encoding="utf-8") as file:
            file.write(text)
    return f"{work_dir}/nginx.conf"


def fill(line, values):
    return re.sub(r"\[\[(\w+)\]\]", lambda name: str(values[name[1]]), line)


def command(nginx, configuration, *more):
    # -e: before it has read its configuration nginx would open the log of the distribution.
    return [nginx, "-e", "stderr", "-p", os.path.dirname(configuration), "-c", configuration, *more]


def running_pid(values):
    """The master of a running nginx, or None."""
    pid = leftovers.nginx_pid(os.path.dirname(values["work_dir"]))
    return pid if pid and leftovers.is_nginx_master(pid) else None


# --- the certificate ------------------------------------------------------------------------------------------


def renew_self_signed(file):
    """Makes the self-signed certificate when there is none or its end is near. Key and certificate are one file, so
    that one rename replaces both."""
    if os.path.exists(file):
        check = ["openssl", "x509", "-noout", "-checkend", str(SELF_SIGNED_RENEW_SECONDS), "-in", file]
        if subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return
    host = socket.gethostname()
    names = "DNS:localhost,IP:127.0.0.1,IP:::1"
    if re.fullmatch(r"[A-Za-z0-9.-]+", host) and host != "localhost":
        names += f",DNS:{host}"
    key, certificate = f"{file}.{os.getpid()}.key", f"{file}.{os.getpid()}.crt"
    os.umask(0o077)
    try:
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-sha256", "-days", str(SELF_SIGNED_DAYS), "-subj", "/CN=localhost", "-addext", f"subjectAltName={names}",
             "-addext", "extendedKeyUsage=serverAuth", "-keyout", key, "-out", certificate],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode != 0:
            sys.exit(f"TLS_SELF_SIGNED=true: openssl made no certificate: {made.stderr.strip()}")
        with open(key, "ab") as both, open(certificate, "rb") as more:
            both.write(more.read())
        os.replace(key, file)
    except FileNotFoundError:
        sys.exit("TLS_SELF_SIGNED=true needs the openssl command; on Debian: apt-get install openssl")
    finally:
        for left in (key, certificate):
            if os.path.exists(left):
                os.remove(left)


def prepare_certificate(values):
    """Renews what is due and returns a fingerprint of the files nginx is to use."""
    if values["self_signed"]:
        private.directory(os.path.dirname(values["certificate"]), "TLS_DIR")
        renew_self_signed(values["certificate"])
    digest = hashlib.sha256()
    for file in (values["certificate"], values["certificate_key"]):
        if file:
            with open(file, "rb") as content:
                digest.update(content.read())
    return digest.hexdigest()


def remembered(work_dir, fingerprint=None):
    """The fingerprint nginx was last started or reloaded with; stores a new one when given."""
    file = f"{work_dir}/certificate.sha256"
    if fingerprint is not None:
        with open(file, "w", encoding="ascii") as out:
            out.write(fingerprint)
        return fingerprint
    try:
        with open(file, encoding="ascii") as found:
            return found.read()
    except OSError:
        return None


# --- the three commands ---------------------------------------------------------------------------------------


def start(nginx, values):
    # nginx drains and goes when supervisord is killed, instead of holding the ports for nobody.
    parent.end_with(int(os.environ.get("PARENT_PID") or os.getppid()), signal.SIGQUIT)
    leftovers.end(os.path.dirname(values["work_dir"]))
    fingerprint = prepare_certificate(values)
    configuration = render(values)
    remembered(values["work_dir"], fingerprint)
    listen(values)
    os.execv(nginx, command(nginx, configuration))


def listen(values):
    """Listens for nginx, which takes the sockets over by their numbers, and limits connections on them."""
    for last in [False] * 5 + [True]:
        try:
            sockets = connection_limit.listen(values["ports"], values["ipv6"])
            break
        except OSError as error:
            if last or error.errno != errno.EADDRINUSE:
                sys.exit(f"cannot listen on {values['ports']}: {error.strerror}; free the port or set HTTP_PORT or HTTPS_PORT")
            time.sleep(0.5)  # an nginx that drains may just be leaving it
    connection_limit.start(sockets, values["worker_connections"], values["proxies"])
    # Detached, or they would be closed with the objects before nginx takes them over.
    os.environ["NGINX"] = "".join(f"{one.detach()};" for one in sockets)


def check(nginx, values):
    prepare_certificate(values)
    configuration = render(values)
    sys.exit(subprocess.run(command(nginx, configuration, "-t", "-q"), check=False).returncode)


def reload(nginx, values):
    fingerprint = prepare_certificate(values)
    pid = running_pid(values)
    if pid is None or fingerprint == remembered(values["work_dir"]):
        return
    configuration = render(values)
    # nginx keeps its old configuration when the new one is at fault, but says so only in its log.
    if subprocess.run(command(nginx, configuration, "-t", "-q"), check=False).returncode != 0:
        sys.exit("the new certificate cannot be used; nginx goes on with the one it has")
    remembered(values["work_dir"], fingerprint)
    os.kill(pid, signal.SIGHUP)
    print("nginx was reloaded: its certificate has changed", flush=True)


def main(arguments):
    commands = {(): start, ("check",): check, ("reload",): reload}
    action = commands.get(tuple(arguments))
    if action is None:
        sys.exit(__doc__)
    nginx = nginx_binary()
    try:
        values = settings(os.environ, nginx)
    except WrongSetting as wrong:
        print(wrong, file=sys.stderr, flush=True)
        sys.exit(2)
    try:
        action(nginx, values)
    except private.Refused as refused:
        print(refused, file=sys.stderr, flush=True)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
