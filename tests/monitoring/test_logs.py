"""rsyslog's pipeline on real processes: what nginx, the server, PostgreSQL and Redis wrote arrives in one shape, every line, whichever end restarts."""

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess

import jsonschema
import pytest
from postgres import Cluster

import watchers
import world as worlds
from support import REPOSITORY, Process, Stack, clean_environment, free_port, short_directory, until

LOGS = REPOSITORY / "monitoring" / "logs"
SCHEMA = json.loads((LOGS / "schema.json").read_text())


class Rsyslog:
    """rsyslogd with one of the repository's files, whose paths and port are replaced."""

    def __init__(self, directory, file, replaced):
        self.directory = directory
        text = (LOGS / file).read_text()
        for old, new in replaced.items():
            assert old in text, old
            text = text.replace(old, str(new))
        directory.mkdir()
        self.config = directory / "rsyslog.conf"
        self.config.write_text(f'global(workDirectory="{directory}")\n{text}')
        self.process = None

    def start(self):
        command = ["rsyslogd", "-n", "-f", self.config, "-i", self.directory / "pid"]
        self.process = Process([str(word) for word in command], clean_environment())
        return self

    def stop(self, number=signal.SIGTERM):
        if self.process and self.process.running:
            self.process.signal(number)
            self.process.wait()


@pytest.fixture(scope="module")
def delivered():
    """A loaded period with restarts of everything: the files as written, and the lines as they arrived."""
    with short_directory() as place, contextlib.ExitStack() as ends:
        written, kept = place / "written", place / "kept"
        for directory in (written, kept):
            directory.mkdir()
            directory.chmod(0o777)
        port = free_port()
        receiver = Rsyslog(place / "receiver", "rsyslog-receiver.conf", {"2514": port, "/var/log/pycrudapi-kept": kept})
        agent = Rsyslog(place / "agent", "rsyslog-agent.conf", {"2514": port, "/var/log/pycrudapi/": f"{written}/"})
        for end in (receiver.start(), agent.start()):
            ends.callback(end.stop)

        logging = {"logging_collector": "on", "log_destination": "jsonlog", "log_directory": str(written), "log_filename": "postgres.log",
                   "log_timezone": "UTC", "log_file_mode": "0644"}  # fmt: skip
        cluster = ends.enter_context(Cluster(worlds.POSTGRES | logging))
        cluster.create(worlds.DATABASE)
        redis_port = free_port()
        redis = watchers.Watcher(["redis-server", "--port", redis_port, "--save", "", "--dir", written, "--logfile", written / "redis.log"], redis_port)
        ends.callback(redis.end)
        directory = place / "stack"
        directory.mkdir()
        to_file = ["sh", "-c", f'exec "$@" >>{written}/stack.log 2>&1', "sh"]
        stack = Stack(directory, prefix=to_file, DATABASE_URL=cluster.url(worlds.DATABASE), LOG_FORMAT="json", LOG="info,access=info", RATE_LIMIT="off", CONN_LIMIT="off",
                      REDIS_URL=f"redis://127.0.0.1:{redis_port}/0")  # fmt: skip
        ends.callback(stack.destroy)
        stack.start()
        world = type("Watched", (), {"stack": stack, "token": "none"})
        with worlds.Load(world) as load:

            def more(count):
                target = load.answered + count
                until(lambda: load.answered >= target, f"{count} more answers", 60)

            more(300)
            receiver.stop(signal.SIGKILL)
            more(300)
            receiver.start()
            more(300)
            agent.stop()
            more(300)
            agent.start()
            more(300)
            subprocess.run(["psql", "-Xq", "-c", "select 1 / 0", cluster.url(worlds.DATABASE)], capture_output=True, check=False)
            os.kill(stack.server_pid(), signal.SIGKILL)
            until(stack.is_ready, "the server is back")
            receiver.stop()
            more(300)
            receiver.start()
            more(100)
        stack.stop()
        redis.end()
        cluster.stop()

        def lines():
            return [line for file in sorted(kept.glob("*.json")) for line in file.read_text().splitlines()]

        originals = [
            (file.name, line) for file in written.iterdir() if file.name in ("stack.log", "postgres.json", "redis.log") for line in file.read_text().splitlines()
        ]
        assert len(originals) > 3000
        with contextlib.suppress(AssertionError):
            until(lambda: len(lines()) >= len(originals), "as many lines arrive as were written", 60)
        print(agent.process.output[-2000:], receiver.process.output[-2000:])
        yield originals, [json.loads(line) for line in lines()]


def test_every_line_arrives(delivered):
    originals, lines = delivered
    arrived = collections.Counter()
    for line in lines:
        arrived[json.dumps(line["fields"], sort_keys=True) if "fields" in line else line["message"]] += 1
    missing = []
    for file, original in originals:
        if original.startswith("{"):
            key = json.dumps(json.loads(original), sort_keys=True)
        elif file == "redis.log":
            key = re.sub(r"^\d+:[A-Z] [^.]*\.\d+ [.*#-] ", "", original)
        else:
            key = re.sub(r"^\d{4}/\d\d/\d\d [^\]]*\] ", "", original)
        if not arrived[key]:
            missing.append((file, original))
    assert not missing, f"{len(missing)} of {len(originals)} are missing, such as {missing[:3]}"


def test_every_line_has_the_one_shape(delivered):
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for line in delivered[1]:
        problems = [error.message for error in validator.iter_errors(line)]
        assert not problems, f"{problems}: {line}"


def test_every_program_is_there_with_its_levels(delivered):
    seen = collections.Counter((line["service"], line["level"]) for line in delivered[1])
    print(seen)
    assert {service for service, _ in seen} >= {"nginx", "server", "postgres", "redis"}
    assert seen["postgres", "error"] >= 1, "division by zero"


def test_nginx_and_the_server_tell_one_request_by_one_id(delivered):
    by_id = collections.defaultdict(dict)
    for line in delivered[1]:
        if line["message"] == "request":
            by_id[line["request_id"]][line["service"]] = line
    both = [each for each in by_id.values() if each.keys() == {"nginx", "server"}]
    assert len(both) > 1000
    for each in both:
        assert each["nginx"]["status"] == each["server"]["status"], each
        assert each["nginx"]["trace_id"] == each["server"]["trace_id"] != "", each
        assert each["nginx"]["method"] == each["server"]["method"]


# Fluent Bit is in no registry, but its script is Lua: the same lines through the interpreter.


LUA_HARNESS = """
dofile(arg[1])
local lines = dofile(arg[2])
local function text(value)
    if type(value) == "table" then
        local parts = {}
        for key, each in pairs(value) do parts[#parts + 1] = string.format("%q: %s", key, text(each)) end
        return "{" .. table.concat(parts, ", ") .. "}"
    end
    return type(value) == "string" and string.format("%q", value):gsub("\\\\\\n", "\\\\n") or tostring(value)
end
for _, each in ipairs(lines) do
    local _, _, line = shape(each.tag, 1764194400, each.record)
    print((text(line)))
end
"""


def lua(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{json.dumps(key)}] = {lua(each)}" for key, each in value.items() if each is not None) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def test_fluent_bits_script_makes_the_same_shape(delivered, tmp_path):
    if not shutil.which("lua5.4"):
        pytest.skip("no lua5.4")
    originals = [(file, line) for file, line in delivered[0] if '\\u' not in line][:2000] + delivered[0][-50:]
    (tmp_path / "harness.lua").write_text(LUA_HARNESS)
    tags = {"stack.log": "stack", "postgres.json": "postgres", "redis.log": "redis"}
    records = [{"tag": tags[file], "record": json.loads(line) if line.startswith("{") else {"log": line}} for file, line in originals]
    (tmp_path / "lines.lua").write_text("return {" + ",\n".join(map(lua, records)) + "}")
    command = ["lua5.4", tmp_path / "harness.lua", LOGS / "shape.lua", tmp_path / "lines.lua"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shaped = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(shaped) == len(originals)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for line in shaped:
        problems = [error.message for error in validator.iter_errors(line)]
        assert not problems, f"{problems}: {line}"
