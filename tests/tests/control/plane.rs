//! A control plane in a namespace: by itself, or with PostgreSQL and Redis as with more than one machine.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use anyhow::{Result, ensure};
use dormouse_tests::{
    databases::{ROLE, as_postgres, redis_server, sql},
    netns::Netns,
    process::{Place, Process},
    servers::echo::sibling,
    stand::SOON,
};
use nix::sys::signal::Signal;

pub const URL: &str = "http://127.0.0.1:7443";
/// PostgreSQL's own.
const PORT: u16 = 5432;

/// Its processes; those that were started.
pub struct Plane {
    folder: PathBuf,
    services: bool,
    control: Option<Process>,
    database: Option<Process>,
    redis: Option<Process>,
}

impl Plane {
    /// Nothing runs yet. `services`: PostgreSQL and Redis instead of a file.
    pub fn prepare(folder: PathBuf, services: bool) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let plane = Self { folder, services, control: None, database: None, redis: None };
        if services {
            let data = plane.folder.join("postgres");
            fs::create_dir(&data)?;
            // Its own user must come through to its folder.
            for folder in
                plane.folder.ancestors().take_while(|folder| folder.starts_with(std::env::temp_dir()))
            {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
            }
            run(Command::new("chown").arg("postgres").arg(&data))?;
            run(as_postgres("initdb").args(["--auth=trust", "--no-sync", "-D"]).arg(data.join("data")))?;
        }
        Ok(plane)
    }

    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    pub fn program(&self, verb: &str) -> Command {
        let mut command = Command::new(sibling("dormouse-control").expect("dormouse-control is built"));
        command.arg(verb).arg("--keys").arg(self.folder.join("keys"));
        command
    }

    /// All of it, until it answers.
    pub fn start(&mut self, netns: &Netns) -> Result<()> {
        let mut command = self.program("serve");
        if self.services {
            self.start_services(netns)?;
            command.args([
                "--database",
                "postgres://dormouse@127.0.0.1/dormouse",
                "--index",
                "redis://127.0.0.1",
            ]);
        } else {
            command.arg("--database").arg(self.folder.join("region.db"));
        }
        let mut control = Process::spawn("dormouse-control", command, Place::netns(netns))?;
        reached(&mut control, netns, 7443)?;
        self.control = Some(control);
        Ok(())
    }

    fn start_services(&mut self, netns: &Netns) -> Result<()> {
        let mut redis = Process::spawn("redis-server", redis_server(&self.folder), Place::netns(netns))?;
        reached(&mut redis, netns, 6379)?;
        self.redis = Some(redis);
        let mut database = as_postgres("postgres");
        let folder = self.folder.join("postgres");
        database.arg("-D").arg(folder.join("data")).arg("-k").arg(&folder).args(["-c", "fsync=off"]);
        let mut database = Process::spawn("postgres", database, Place::netns(netns))?;
        database.wait_until(SOON, || netns.run(|| sql(PORT, "SELECT 1")))?;
        // There already after a restart.
        let _ = netns.run(|| sql(PORT, ROLE));
        let _ = netns.run(|| sql(PORT, "CREATE DATABASE dormouse OWNER dormouse"));
        self.database = Some(database);
        Ok(())
    }

    /// As an orderly deploy does.
    pub fn stop(&mut self) -> Result<()> {
        for process in [self.control.take(), self.redis.take(), self.database.take()] {
            let Some(mut process) = process else { continue };
            // For PostgreSQL this is the fast shutdown; to the others it is as good as SIGTERM.
            process.signal(Signal::SIGINT)?;
            process.wait(SOON)?;
        }
        Ok(())
    }

    pub fn kill(&mut self) -> Result<()> {
        if let Some(control) = self.control.take() {
            control.signal(Signal::SIGKILL)?;
        }
        Ok(())
    }
}

fn reached(process: &mut Process, netns: &Netns, port: u16) -> Result<()> {
    process
        .wait_until(SOON, || Ok(netns.run(|| std::net::TcpStream::connect(("127.0.0.1", port))).map(drop)?))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
