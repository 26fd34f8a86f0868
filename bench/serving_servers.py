"""The servers that bench/serving_results.py measures: started, asked what they used, limited, stopped."""
import os
import signal
import socket
import subprocess
import time

from serving_load import call


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process. `cgroup`: it runs inside, from its first instruction."""

    def __init__(self, name, command, log, environment=None, cgroup=None):
        self.name = name
        self.port = free_port()
        self.log = log
        enter = (lambda: cgroup.enter()) if cgroup else None
        with open(log, "ab") as output:
            self.process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(self.port)], stdout=output,
                                            stderr=output, env={**os.environ, **(environment or {})}, preexec_fn=enter)

    def wait_ready(self, seconds=300):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name}: ended with {self.process.returncode} before it was ready: {self.log}")
            try:
                if call(self.port, "GET", "/health", timeout=5)[0] == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{self.name}: not ready after {seconds} s: {self.log}")

    def __enter__(self):
        try:
            return self.wait_ready()
        except RuntimeError:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def how_it_ended(self):
        """None while it runs."""
        code = self.process.poll()
        return None if code is None else f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def memory(self):
        """Bytes by their names in /proc/PID/status: VmRSS, RssAnon, RssFile."""
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:
            return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status
                    if line.startswith(("VmRSS", "RssAnon", "RssFile"))}

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def thread_seconds(self):
        """Seconds on a processor by thread."""
        folder = f"/proc/{self.process.pid}/task"
        seconds = {}
        for thread in os.listdir(folder):
            try:
                with open(f"{folder}/{thread}/schedstat", encoding="utf-8") as file:
                    seconds[thread] = int(file.read().split()[0]) / 1e9
            except OSError:  # it has just ended
                pass
        return seconds


def forget_page_cache(path):
    """Pages of a file count for the group that read them first: none may be left of another one's."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class MemoryCgroup:
    """A control group of our own with a memory limit, of version 1 or 2. None of from_system where none can be made."""

    def __init__(self, folder, limit_file):
        self.folder = folder
        self.limit_file = limit_file

    @classmethod
    def from_system(cls):
        for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
            folder = os.path.join(root, f"espalier-bench-{os.getpid()}")
            try:
                os.mkdir(folder)
            except OSError:
                continue
            if os.path.exists(os.path.join(folder, limit)):
                return cls(folder, limit)
            os.rmdir(folder)
        return None

    def enter(self):
        with open(os.path.join(self.folder, "cgroup.procs"), "w", encoding="utf-8") as file:
            file.write("0")

    def limit(self, limit_bytes):
        """What came of it, and the seconds it took."""
        start = time.monotonic()
        try:
            # Unbuffered: the error is the write's, not the close's.
            with open(os.path.join(self.folder, self.limit_file), "wb", buffering=0) as file:
                file.write(str(limit_bytes).encode())
            came = "taken"
        except OSError as error:
            came = f"refused: {error.strerror}"
        return {"came": came, "seconds": time.monotonic() - start}

    def read(self, name):
        try:
            with open(os.path.join(self.folder, name), encoding="utf-8") as file:
                return int(file.read())
        except (OSError, ValueError):
            return None

    def usage(self):
        return self.read("memory.usage_in_bytes" if "limit_in" in self.limit_file else "memory.current")

    def remove(self):
        for _ in range(50):
            try:
                os.rmdir(self.folder)
                return
            except OSError:
                time.sleep(0.1)
