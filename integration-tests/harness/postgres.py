"""Real PostgreSQL servers, each in a directory of its own, with a password; alone, or with a standby."""

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
    def __init__(self, directory: Path, *, everywhere=False):
        """With `everywhere` also for those who do not come by loopback."""
        self.everywhere = everywhere
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
            secret = self._prepare()
            options = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync"]
            argv = self._argv("initdb", "-D", data, *options)
            subprocess.run([str(a) for a in argv], check=True, capture_output=True, timeout=120)
            listens = "*" if self.everywhere else "127.0.0.1"
            self.configure(f"listen_addresses = '{listens}'\nport = {self.port}\nunix_socket_directories = ''\n")
            if self.everywhere:
                with open(data / "pg_hba.conf", "a") as rules:
                    rules.write("host all all 0.0.0.0/0 scram-sha-256\n")

        def answers():
            if self.child is None or not self.child.alive():  # one that was killed leaves its memory behind for a moment
                self.child = Child(self._argv("postgres", "-D", data), log=self.directory / "log")
            ready = [str(programs() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
            return subprocess.run(ready, timeout=10).returncode == 0

        wait_until(answers, 60, "PostgreSQL's first answer", every_s=0.1)
        return self

    def configure(self, lines):
        """Further lines of its configuration, of which later ones win; they count from its next start."""
        with open(self.directory / "data/postgresql.conf", "a") as config:
            config.write(lines)

    def follow(self, primary: "Postgres"):
        """Becomes a standby of `primary`, from a copy of all that it has; what was here before is gone."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self._prepare()
        source = f"host=127.0.0.1 port={primary.port} user={USER} password={PASSWORD}"
        options = ["-R", "-X", "stream", "-c", "fast", "--no-sync"]
        argv = self._argv("pg_basebackup", "-d", source, "-D", self.directory / "data", *options)
        subprocess.run([str(a) for a in argv], check=True, capture_output=True, timeout=120)
        self.configure(f"port = {self.port}\n")
        self.start()

    def reload(self):
        argv = self._argv("pg_ctl", "reload", "-D", self.directory / "data")
        subprocess.run([str(a) for a in argv], check=True, capture_output=True, timeout=60)

    def promote(self):
        """A standby becomes the primary."""
        argv = self._argv("pg_ctl", "promote", "-w", "-D", self.directory / "data")
        subprocess.run([str(a) for a in argv], check=True, capture_output=True, timeout=60)

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

    def _prepare(self) -> Path:
        """The directory, and in it the file with the password."""
        self.directory.mkdir(parents=True)
        secret = self.directory / "password"
        secret.write_text(PASSWORD)
        self._own(self.directory, secret)
        return secret

    def _argv(self, program, *args) -> list:
        """PostgreSQL refuses to run as root."""
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL"]
        return [*(as_user if os.geteuid() == 0 else []), programs() / program, *args]

    def _own(self, *paths):
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            for path in paths:
                os.chown(path, user.pw_uid, user.pw_gid)


class Replicated:
    """A primary without whose synchronous standby nothing is committed, as a careful fail-over manager keeps them."""

    def __init__(self, directory: Path):
        self.primary, self.standby = (Postgres(directory / name, everywhere=True) for name in ("one", "other"))

    def journal(self, host) -> dict:
        """The `journal` section for a broker that finds both servers at `host`."""
        ports = sorted(server.port for server in (self.primary, self.standby))
        servers = ",".join(f"{host}:{port}" for port in ports)
        return {"kind": "postgres", "postgres_url": f"postgres://{USER}@{servers}/postgres"}

    def start(self) -> "Replicated":
        self.primary.start()
        self.standby.follow(self.primary)
        # Not before there is one: commits would wait.
        replicated = "synchronous_standby_names = '*'\nwal_retrieve_retry_interval = 200ms\n"
        for server in (self.primary, self.standby):
            server.configure(replicated)
            server.reload()
        return self

    def is_whole(self) -> bool:
        """Whether the standby has all that is committed, and could take over."""
        return self.primary.query("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1"

    def kill9(self):
        """The primary."""
        self.primary.kill9()

    def promote(self):
        """The primary is dead; the standby takes its place, and it comes back as a standby."""
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary
        self.standby.follow(self.primary)

    def stop(self):
        self.primary.stop(), self.standby.stop()
