//! The binary under test, as processes.

use std::{
    fs::{self, OpenOptions},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub(crate) const TOKEN: &str = "torture-admin-token-of-nobody";
/// Whatever must come, comes within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Processes of the program that ended by SIGKILL so far, theirs or a fault's.
pub(crate) static CRASHES: AtomicU64 = AtomicU64::new(0);
const SIGKILL: i32 = 9;

/// A running process of the program. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    /// Where it listens; empty if it does not.
    pub(crate) url: String,
    log: PathBuf,
    /// Where its part of the log begins.
    log_from: u64,
}

/// How to start one.
pub(crate) struct Start<'a> {
    pub(crate) bin: &'a Path,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) log: PathBuf,
}

impl Start<'_> {
    /// Starts it, and waits for nothing. A write beyond a limit of file size fails instead of ending it, as on a full disk.
    pub(crate) fn spawn(&self) -> Result<Program> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let log_from = log.metadata()?.len();
        let mut command = Command::new("bash");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLASHSALE_")) {
            command.env_remove(name);
        }
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(self.bin).args(&self.arguments);
        command.env("FLASHSALE_ADMIN_TOKEN", TOKEN).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().context("bash is missing")?;
        Ok(Program { child, url: String::new(), log: self.log.clone(), log_from })
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn serve(&self) -> Result<Program> {
        let mut program = self.spawn()?;
        program.await_url()?;
        Ok(program)
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Result<(ExitStatus, String)> {
        let mut command = Command::new(self.bin);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLASHSALE_")) {
            command.env_remove(name);
        }
        let ended = command.args(&self.arguments).envs(self.environment.iter().cloned()).output()?;
        let said = [ended.stdout, ended.stderr].concat();
        Ok((ended.status, String::from_utf8_lossy(&said).into_owned()))
    }
}

impl Program {
    pub(crate) fn await_url(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("it has ended ({status}):\n{}", self.log());
            }
            if let Some((_, rest)) = self.log().split_once("listening on ") {
                rest.split_whitespace().next().unwrap_or_default().clone_into(&mut self.url);
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "it does not listen:\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until it says that sales can be decided.
    pub(crate) fn await_ready(&self) -> Result<()> {
        let ready = || get(&format!("{}/health/ready", self.url)).is_ok_and(|(status, _)| status == 200);
        wait("ready", ready).with_context(|| self.log())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What this process has logged.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(self.log_from).unwrap_or_default().min(log.len());
        String::from_utf8_lossy(&log[from..]).into_owned()
    }

    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        signal(self.pid(), name)
    }

    /// Pulls the plug, if a fault has not done so before.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        if self.child.wait()?.signal() == Some(SIGKILL) {
            CRASHES.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(crate) fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end, at most so long.
    pub(crate) fn ended_within(&mut self, bound: Duration) -> Result<Option<ExitStatus>> {
        let began = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > bound {
                return Ok(ended);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asks it to stop; it must, soon and in order.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        self.signal("TERM")?;
        match self.ended_within(PATIENCE)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("SIGTERM ended it with {status}:\n{}", self.log()),
            None => bail!("it goes on after SIGTERM:\n{}", self.log()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(pid: u32, name: &str) -> Result<()> {
    run("kill", &["-s", name, &pid.to_string()]).map(drop)
}

/// Runs a command, which must go well; what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let ended =
        Command::new(program).args(arguments).output().with_context(|| format!("{program} is missing"))?;
    let err = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{program} {}: {err}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&ended.stdout).trim().to_owned())
}

pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).build().into()
}

fn read(mut response: http::Response<ureq::Body>) -> Result<(u16, String)> {
    let status = response.status().as_u16();
    Ok((status, response.body_mut().with_config().limit(1 << 30).read_to_string()?))
}

/// Status and body.
pub(crate) fn get(url: &str) -> Result<(u16, String)> {
    let request = agent(PATIENCE).get(url).header("authorization", format!("Bearer {TOKEN}"));
    read(request.call()?)
}

pub(crate) fn post(url: &str, body: &Value) -> Result<(u16, String)> {
    let request = agent(PATIENCE).post(url).header("authorization", format!("Bearer {TOKEN}"));
    read(request.header("content-type", "application/json").send(body.to_string())?)
}

/// Waits for what must come.
pub(crate) fn wait(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !holds() {
        ensure!(began.elapsed() < PATIENCE, "it never came within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
