"""A real PostgreSQL server in a directory of its own, with a password."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from .processes import Child, free_port, wait_until

USER, PASSWORD = "strandline_test", "strandline-test-password"


def programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3]))
    assert found, "PostgreSQL is not installed: run setup.sh postgres"
    return found[-1].parent


class Postgres:
    def __init__(self, directory: Path):
        # Not below pytest's own directory, which is closed to the user that the server runs as.
        self.directory = Path("/tmp") / f"strandline-postgres-{os.getpid()}-{directory.name}"
        self.port = free_port()
        self.child: Child | None = None

    def url(self, query="") -> str:
        return f"postgres://{USER}@127.0.0.1:{self.port}/postgres{query}"

    def journal(self, **more) -> dict:
        """The `journal` section for this server; the password belongs into the environment."""
        return {"kind": "postgres", "postgres_url": self.url(), **more}

    def environment(self) -> dict:
        return {"STRANDLINE_JOURNAL__POSTGRES_PASSWORD": PASSWORD}

    def start(self) -> "Postgres":
        data = self.directory / "data"
        if not data.exists():
            self.directory.mkdir(parents=True)
            secret = self.directory / "password"
            secret.write_text(PASSWORD)
            self._own(self.directory, secret)
            options = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync"]
            argv = self._argv("initdb", "-D", data, *options)
            subprocess.run([str(a) for a in argv], check=True, capture_output=True, timeout=120)
            with open(data / "postgresql.conf", "a") as config:
                config.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\n")

        def answers():
            if self.child is None or not self.child.alive():  # one that was killed leaves its memory behind for a moment
                self.child = Child(self._argv("postgres", "-D", data), log=self.directory / "log")
            ready = [str(programs() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            return subprocess.run(ready, timeout=10).returncode == 0

        wait_until(answers, 60, "PostgreSQL's first answer", every_s=0.1)
        return self

    def query(self, statement) -> str:
        argv = [programs() / "psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url()]
        env = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run([str(a) for a in argv], env=env, check=True, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    def kill9(self):
        """All of its processes, of which each is in a session of its own."""
        children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()
        subprocess.run(["kill", "-9", str(self.child.pid), *children], stderr=subprocess.DEVNULL)
        self.child.kill9()

    def back_up(self):
        """Keeps what it has now, as a backup or a replica that will lag has it."""
        self.kill9()
        shutil.rmtree(self.directory / "kept", ignore_errors=True)
        subprocess.run(["cp", "-a", self.directory / "data", self.directory / "kept"], check=True)
        self.start()

    def lose(self):
        """Everything since `back_up` is gone."""
        self.kill9()
        shutil.rmtree(self.directory / "data")
        subprocess.run(["cp", "-a", self.directory / "kept", self.directory / "data"], check=True)
        self.start()

    def stop(self):
        if self.child and self.child.alive():
            self.kill9()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _argv(self, program, *args) -> list:
        """PostgreSQL refuses to run as root."""
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL"]
        return [*(as_user if os.geteuid() == 0 else []), programs() / program, *args]

    def _own(self, *paths):
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            for path in paths:
                os.chown(path, user.pw_uid, user.pw_gid)
