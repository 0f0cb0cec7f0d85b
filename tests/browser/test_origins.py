"""In a real browser a page of another origin cannot write, and a page under a foreign host name cannot read."""

import http.server
import threading

import pytest
from playwright.sync_api import expect

import support

# The bodies that a page can send without a preflight: bytes without a type, text, and a form.
ATTACK = """<!doctype html><title>elsewhere</title>
<iframe name="answer"></iframe>
<form id="step" method="post" action="%(target)s/v1/steps" target="answer">
  <input name="component" value="attack"><input name="version" value="1">
  <input name="owner" value="elsewhere"><input name="status" value="attacked">
</form>
<output></output>
<script>
  const passenger = JSON.stringify(%(passenger)s);
  const post = (path, body) =>
    fetch("%(target)s" + path, { method: "POST", mode: "no-cors", body });
  const answered = new Promise((resolve) => document.querySelector("iframe").addEventListener("load", resolve));
  Promise.all([
    post("/v1/passengers", new Blob([passenger])),
    post("/postpassenger", new Blob([passenger])),
    post("/v1/passengers", passenger),
    post("/v1/steps?component=attack&version=2&owner=elsewhere&status=attacked"),
    post("/v1/steps", new URLSearchParams({ component: "attack", version: "3", owner: "e", status: "s" })),
  ]).then(() => document.querySelector("form").submit());
  answered.then(() => (document.querySelector("output").textContent = "answered"));
</script>"""


@pytest.fixture
def elsewhere(stack):
    """The URL of a page on another origin that attacks the stack."""
    passenger = '{"survived":true,"passengerClass":1,"name":"From Elsewhere","sex":"male","age":1,' \
        '"siblingsOrSpousesAboard":0,"parentsOrChildrenAboard":0,"fare":1}'
    page = ATTACK % {"target": f"http://localhost:{stack.port}", "passenger": passenger}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context()
    context.set_default_timeout(support.DEADLINE_SECONDS * 1000)
    yield context.new_page()
    context.close()


def test_a_page_of_another_origin_stores_nothing(stack, elsewhere, page):
    statuses = []
    page.on("response", lambda answer: statuses.append(answer.status) if answer.request.method == "POST" else None)
    page.goto(elsewhere)
    expect(page.locator("output")).to_have_text("answered")
    assert statuses == [403] * 6
    assert stack.request("GET", "/v1/passengers?name=eq.From%20Elsewhere").json() == []
    assert stack.request("GET", "/v1/steps?component=attack&format=json").json() == {"steps": []}


def test_a_rebound_host_name_reads_nothing(stack, page):
    answer = page.goto(f"http://rebound.example:{stack.port}/v1/passengers")
    assert answer.status == 421
    assert answer.json()["code"] == "misdirected-request"
    assert page.goto(f"http://localhost:{stack.port}/v1/passengers").status == 200
