"""A headless Chromium, driven over the DevTools protocol. Needs the package websocket-client."""

import base64
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import urllib.request

import websocket

from support.serve_clients import SOCKET_SECONDS, wait_for

CHROMIUM = "/usr/bin/chromium"


class Browser:
    """One browser with one page. Errors of its scripts, and what the console says of errors, gather in `errors`."""

    def __init__(self, width, height):
        assert os.path.exists(CHROMIUM), f"{CHROMIUM} is missing: install Debian's package chromium"
        self.profile = pathlib.Path(tempfile.mkdtemp(prefix="espalier-browser-"))
        self.errors = []
        self.numbers = itertools.count(1)
        self.socket = None
        # Root may not have the sandbox; the only page here is our own. Small /dev/shm: containers.
        self.process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
             "--remote-debugging-port=0", f"--user-data-dir={self.profile}", f"--window-size={width},{height}",
             "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            self.connect()
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                      mobile=False)
        except BaseException:
            self.close()
            raise

    def connect(self):
        port_file = self.profile / "DevToolsActivePort"

        def port():
            assert self.process.poll() is None, f"{CHROMIUM} ended with code {self.process.returncode}"
            lines = port_file.read_text().splitlines() if port_file.exists() else []
            return lines[0] if len(lines) == 2 else None
        address = f"http://127.0.0.1:{wait_for(port, 'Chromium to listen')}/json/list"

        def page():
            with urllib.request.urlopen(address, timeout=SOCKET_SECONDS) as answer:
                return next((target for target in json.load(answer) if target["type"] == "page"), None)
        self.socket = websocket.create_connection(wait_for(page, "a page")["webSocketDebuggerUrl"],
                                                  timeout=SOCKET_SECONDS, suppress_origin=True)

    def call(self, method, **parameters):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.note(message)

    def note(self, message):
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(parameters["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
            self.errors.append(parameters["args"])
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"])

    def open(self, url):
        self.call("Page.navigate", url=url)
        wait_for(lambda: self.run("document.readyState") == "complete" and self.run("location.href") != "about:blank",
                 f"{url} to be loaded")

    def run(self, script):
        """The value of an expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def place(self, selector, across=0.5):
        """A point in an element, scrolled into view."""
        return self.run(f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{block: 'center', behavior: 'instant'}});
            const box = element.getBoundingClientRect();
            return [box.left + {across} * box.width, box.top + box.height / 2];
        }})()""")

    def click(self, selector, across=0.5):
        x, y = self.place(selector, across)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, selector, start, end):
        """From one part of an element's width to another, with the button held."""
        x, y = self.place(selector, start)
        to_x, _ = self.place(selector, end)
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        for step in range(1, 6):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + (to_x - x) * step / 5, y=y, button="left",
                      buttons=1)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=to_x, y=y, button="left", clickCount=1)

    def write(self, selector, text):
        """In place of what the field holds."""
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def screenshot(self, path):
        self.run("scrollTo(0, 0)")
        width, height = self.run("[innerWidth, document.body.getBoundingClientRect().height]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        pathlib.Path(path).write_bytes(base64.b64decode(picture["data"]))

    def close(self):
        if self.socket:
            self.socket.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)
