"""A Dask cluster of real processes on this machine."""

import json
import os
import subprocess
import sys
import time

ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


class Processes:
    """A scheduler and its workers, each a process that can be killed."""

    def __init__(self, directory):
        self.file = directory / "scheduler.json"
        self.directory = directory
        self.scheduler = None
        self.workers = {}
        self.start_scheduler()

    def start_scheduler(self):
        self.file.unlink(missing_ok=True)
        self.scheduler = self._start("dask_scheduler", "--port=0")
        wait_until(lambda: self.file.exists() and json.loads(self.file.read_text()))

    def start_worker(self, name, *arguments, **environment):
        """Start a worker, which is ready some seconds later."""
        arguments = ("--nthreads=1", "--no-nanny", f"--name={name}", *arguments)
        self.workers[name] = self._start("dask_worker", *arguments, **environment)

    def kill(self, name):
        self.workers[name].kill()
        self.workers.pop(name).wait()

    def close(self):
        for process in [self.scheduler, *self.workers.values()]:
            process.kill()
            process.wait()

    def _start(self, module, *arguments, **environment):
        command = [
            *(sys.executable, "-m", f"distributed.cli.{module}", *arguments),
            *(f"--scheduler-file={self.file}", "--no-dashboard"),
        ]
        with open(self.directory / f"{module}-{time.time_ns()}.log", "w") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**ENVIRONMENT, **environment},
            )


def wait_until(done, seconds=240):
    """Return what `done` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while not (result := done()):
        assert time.monotonic() < end, "too late"
        time.sleep(0.05)
    return result
