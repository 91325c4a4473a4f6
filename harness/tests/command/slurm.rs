//! The job template on a real Slurm, started here for the length of the test: eight tasks, one of them killed half-way and sent
//! again by the scheduler.
//!
//! Where Slurm is not installed, or does not start, the test says so and asks nothing.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::shards::content;
use super::{isonorm, text};

/// A controller and a node on the loopback interface.
struct Slurm(PathBuf);

impl Slurm {
    /// Starts both; the error says why that is not possible here.
    fn start(folder: &Path) -> Result<Slurm, String> {
        let output = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.map(|output| text(&output.stdout).trim().to_owned()).map_err(|error| format!("{program}: {error}"))
        };
        let (host, user) = (output("hostname", &["-s"])?, output("id", &["-un"])?);
        output("slurmctld", &["-V"]).and_then(|_| output("slurmd", &["-V"])).and_then(|_| output("sbatch", &["-V"]))?;
        for name in ["state", "spool"] {
            fs::create_dir(folder.join(name)).map_err(|error| error.to_string())?;
        }
        // Ports by process, so that two of these tests can run at the same time.
        let port = 20_000 + 2 * (std::process::id() % 10_000);
        let (here, next) = (folder.display(), port + 1);
        let configuration = format!(
            "ClusterName=test\nSlurmctldHost={host}(127.0.0.1)\nSlurmUser={user}\nSlurmdUser={user}\nAuthType=auth/none\n\
             CredType=cred/none\nSlurmctldPort={port}\nSlurmdPort={next}\nStateSaveLocation={here}/state\n\
             SlurmdSpoolDir={here}/spool\nSlurmctldPidFile={here}/slurmctld.pid\nSlurmdPidFile={here}/slurmd.pid\n\
             SlurmctldLogFile={here}/slurmctld.log\nSlurmdLogFile={here}/slurmd.log\nProctrackType=proctrack/linuxproc\n\
             TaskPlugin=task/none\nSwitchType=switch/none\nMpiDefault=none\nReturnToService=2\nJobRequeue=1\n\
             SchedulerParameters=batch_sched_delay=1,sched_interval=1\nSelectType=select/cons_tres\n\
             SelectTypeParameters=CR_Core\nNodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN\n\
             PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP\n",
            cpus = std::thread::available_parallelism().map_or(1, usize::from)
        );
        fs::write(folder.join("slurm.conf"), configuration).map_err(|error| error.to_string())?;
        let slurm = Slurm(folder.to_owned());
        for daemon in ["slurmctld", "slurmd"] {
            let output = slurm.command(daemon).output().map_err(|error| format!("{daemon}: {error}"))?;
            if !output.status.success() {
                return Err(format!("{daemon} does not start: {}", text(&output.stderr)));
            }
        }
        let started = Instant::now();
        while !slurm.says("sinfo", &["--noheader", "--format=%T"]).contains("idle") {
            if started.elapsed() > Duration::from_secs(30) {
                let log = fs::read_to_string(folder.join("slurmctld.log")).unwrap_or_default();
                return Err(format!("the node does not come up: {log}"));
            }
            sleep(Duration::from_millis(200));
        }
        Ok(slurm)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.0.join("slurm.conf")).current_dir(&self.0);
        command
    }

    fn says(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output();
        output.map_or_else(|error| error.to_string(), |output| text(&output.stdout))
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        for daemon in ["slurmd", "slurmctld"] {
            let pid = fs::read_to_string(self.0.join(format!("{daemon}.pid"))).unwrap_or_default();
            if !pid.trim().is_empty() {
                let _ = Command::new("kill").arg(pid.trim()).status();
            }
        }
        // Their logs and states go with the folder, once they are gone.
        sleep(Duration::from_millis(500));
    }
}

/// What a task runs: the program, except that the third task is killed half-way the first time, and sent again.
const PROGRAM: &str = r#"#!/bin/bash
if [ "$SLURM_ARRAY_TASK_ID" = 3 ] && [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then
  "$REAL" "$@" &
  until [ -s "$RECORDS/records-3-of-8.jsonl" ]; do :; done
  kill -KILL $!
  scontrol requeue "$SLURM_JOB_ID"
  sleep 60
fi
exec "$REAL" "$@"
"#;

#[test]
fn an_array_of_slurm_with_a_task_that_is_sent_again_is_the_whole_campaign() {
    let folder = tempfile::tempdir().expect("a folder");
    let slurm = match Slurm::start(folder.path()) {
        Ok(slurm) => slurm,
        Err(why) => {
            // Not `eprintln`, which is not shown for a test that passes.
            let _ = writeln!(io::stderr(), "SKIPPED, nothing was asked of Slurm: {why}");
            return;
        }
    };
    let select = ["--op", "rms_norm", "--direction", "forward", "--jobs", "1"];
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let output =
        isonorm(&[&["certify", "--cases", "4000", "--out", &whole.display().to_string()], &select[..]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));

    let program = folder.path().join("program");
    fs::write(&program, PROGRAM).expect("written");
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, permissions).expect("executable");
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/slurm/campaign.sbatch");
    let sent: Output = slurm
        .command("sbatch")
        .arg(template)
        .envs([("ISONORM", &program), ("RECORDS", &parts)])
        .envs([("REAL", env!("CARGO_BIN_EXE_isonorm")), ("CASES", "4000")])
        .env("ISONORM_ARGUMENTS", select.join(" "))
        .output()
        .expect("sbatch starts");
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    let started = Instant::now();
    loop {
        let queue = slurm.says("squeue", &["--noheader", "--array", "--format=%K %T %r"]);
        if queue.trim().is_empty() {
            break;
        }
        // What is sent again waits for two minutes, which nobody needs here.
        if queue.contains("3 PENDING BeginTime") {
            slurm.says("scontrol", &["update", "job=1_3", "StartTime=now"]);
        }
        assert!(started.elapsed() < Duration::from_secs(300), "{queue}");
        sleep(Duration::from_millis(300));
    }
    assert!(parts.join("records-3-of-8.2.jsonl").exists(), "the third task was killed, and sent again");
    let (whole, merged) = (content(&whole), content(&parts));
    assert!(whole == merged, "{}\n{}", whole.1, merged.1);
    let out = folder.path().join("report").display().to_string();
    let output = isonorm(&["report", &parts.display().to_string(), "--out", &out]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
