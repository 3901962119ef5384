//! A PostgreSQL server in a temporary directory, on a port of its own; gone with the value.
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use crate::world::World;

pub(super) struct Server {
    directory: TempDir,
    port: u16,
    process: Option<Child>,
}

/// The newest installed version's programs.
fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.map(|entry| entry.unwrap().path().join("bin")).collect())
        .unwrap_or_default();
    versions.retain(|bin| bin.join("initdb").exists());
    versions.sort();
    versions.pop().expect("PostgreSQL is not installed: run integration-tests/setup.sh postgres")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// PostgreSQL refuses to run as root.
fn command(program: &str) -> Command {
    let path = programs().join(program);
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig=KILL"]).arg(path);
    command
}

fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn directory() -> TempDir {
    let directory = TempDir::with_prefix("strandline-postgres-").unwrap();
    own(directory.path());
    directory
}

/// Gives a file to the user that the server runs as.
pub(super) fn own(path: &Path) {
    if is_root() {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
        let mut ids = line.split(':').skip(2).map(|id| id.parse::<u32>().unwrap());
        chown(path, ids.next(), ids.next()).unwrap();
    }
}

impl Server {
    pub(super) async fn new() -> Self {
        Self::with("").await
    }

    /// With these lines in its configuration.
    pub(super) async fn with(configuration: &str) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        let options = ["-U", "test", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"];
        run(command("initdb").arg("-D").arg(&data).args(options));
        let mut server = Self { directory, port: 0, process: None };
        server.configure(&format!("listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n{configuration}"));
        server.take_port();
        server.start().await;
        server
    }

    /// A standby of this one, which follows it from now on.
    pub(super) async fn standby(&self) -> Self {
        let directory = directory();
        let data = directory.path().join("data");
        let port = self.port.to_string();
        let from = ["-h", "127.0.0.1", "-p", &port, "-U", "test", "-R", "-X", "stream", "-c", "fast", "--no-sync"];
        run(command("pg_basebackup").args(from).arg("-D").arg(&data));
        let mut server = Self { directory, port: 0, process: None };
        server.take_port();
        server.start().await;
        server
    }

    fn take_port(&mut self) {
        self.port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        self.configure(&format!("port = {}\n", self.port));
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Adds lines to the configuration; later ones win. They count after a start or a reload.
    pub(super) fn configure(&self, lines: &str) {
        let path = self.data().join("postgresql.conf");
        writeln!(std::fs::OpenOptions::new().append(true).open(path).unwrap(), "{lines}").unwrap();
    }

    pub(super) async fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let world = World::real().unwrap();
        // A server that was killed leaves its memory behind until its last process has ended.
        for _ in 0..100 {
            let (out, err) = (log.try_clone().unwrap(), log.try_clone().unwrap());
            let mut postgres = command("postgres");
            postgres.arg("-D").arg(self.data()).stdin(Stdio::null()).stdout(out).stderr(err);
            let mut process = postgres.spawn().unwrap();
            while process.try_wait().unwrap().is_none() {
                if tokio_postgres::connect(&self.url(), NoTls).await.is_ok() {
                    self.process = Some(process);
                    return;
                }
                world.sleep(Duration::from_millis(20)).await;
            }
            world.sleep(Duration::from_millis(50)).await;
        }
        panic!("the server did not start: {}", std::fs::read_to_string(self.log()).unwrap());
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Kills all of its processes at once.
    pub(super) fn kill9(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let id = process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let all: Vec<String> =
            std::iter::once(id.to_string()).chain(children.split_whitespace().map(Into::into)).collect();
        // Some may have ended meanwhile.
        let _ = Command::new("kill").arg("-9").args(all).stderr(Stdio::null()).status();
        process.wait().unwrap();
    }

    /// Stops it in order.
    pub(super) fn stop(&mut self) {
        run(command("pg_ctl").args(["stop", "-w", "-m", "fast", "-D"]).arg(self.data()));
        self.process.take().unwrap().wait().unwrap();
    }

    pub(super) fn promote(&self) {
        run(command("pg_ctl").args(["promote", "-w", "-D"]).arg(self.data()));
    }

    /// Returns when new connections have what was configured.
    pub(super) async fn reload(&self) {
        let before = self.loaded().await;
        run(command("pg_ctl").args(["reload", "-D"]).arg(self.data()));
        while self.loaded().await == before {
            World::real().unwrap().sleep(Duration::from_millis(5)).await;
        }
    }

    async fn loaded(&self) -> String {
        self.client().await.query_one("SELECT pg_conf_load_time()::TEXT", &[]).await.unwrap().get(0)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn url(&self) -> String {
        url(&[self.port])
    }

    /// A connection beside the journal's.
    pub(super) async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        drop(World::real().unwrap().spawn("test connection", connection));
        client.batch_execute("SET search_path = strandline; SET synchronous_commit = local").await.unwrap();
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// A URL with these ports as its hosts.
pub(super) fn url(ports: &[u16]) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://test@{}/postgres", hosts.join(","))
}
