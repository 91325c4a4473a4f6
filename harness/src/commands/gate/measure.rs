//! What a gate measures: a campaign, and of each workload several processes.
//!
//! Both are the command's own verbs, each in a process of its own. For times that is the point: what a process is given
//! (addresses, pages) moves a ratio by more than its rounds show, so that only several processes tell the spread.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isonorm_kernels::abi::DtypeSet;
use isonorm_reports::gate::{Action, Gate, Policy, Snapshot};

use super::super::Error;
use super::super::kernels::Selection;
use crate::bench::workload::{self, Shape};
use crate::campaign::Entry;
use crate::run::Device;

/// Suspects are measured in so many times the processes, for so many times as long.
const AGAIN: u32 = 2;

/// What is measured, and where the records go.
pub(super) struct Measure<'a> {
    selection: &'a Selection,
    policy: &'a Policy,
    folder: PathBuf,
    entries: Vec<Entry>,
    shapes: Vec<Shape>,
    dtypes: Vec<DtypeSet>,
}

impl<'a> Measure<'a> {
    /// Checks what can be checked before anything takes time.
    pub(super) fn new(selection: &'a Selection, policy: &'a Policy, folder: PathBuf) -> Result<Self, Error> {
        let wrong = |error: String| Error::Usage(format!("in the policy: {error}"));
        let shapes: Result<Vec<Shape>, String> = policy.speed.shapes.iter().map(|shape| shape.parse()).collect();
        let dtypes: Result<Vec<DtypeSet>, String> =
            policy.speed.dtypes.iter().map(|dtype| dtype.parse().map_err(|error| format!("{error}"))).collect();
        Ok(Measure {
            entries: selection.entries(1)?,
            shapes: shapes.map_err(wrong)?,
            dtypes: dtypes.map_err(wrong)?,
            selection,
            policy,
            folder,
        })
    }

    /// Judges and times the kernels now; only times them if there are records of a campaign already, which may be those that an
    /// earlier gate left here.
    pub(super) fn everything(&self, records: &[PathBuf]) -> Result<Snapshot, Error> {
        let mut all = records.to_vec();
        let on = &self.policy.on;
        if records.is_empty() && (on.correctness != Action::Off || on.accuracy != Action::Off) {
            all.push(self.anew("campaign")?);
            self.certify()?;
        }
        let (timed, launched): (Vec<&Entry>, Vec<&Entry>) =
            self.entries.iter().partition(|entry| entry.contender.device() != Device::Ptx);
        if on.speed != Action::Off && !launched.is_empty() {
            eprintln!("gate: the PTX executor has no times; what launches do there is compared");
        }
        if on.speed != Action::Off && !timed.is_empty() {
            self.anew("again")?;
            let speed = self.anew("speed")?;
            self.all_times(&speed, 0.0)?;
            if !records.iter().any(|folder| speed.starts_with(folder)) {
                all.push(speed);
            }
        }
        Ok(Snapshot::of(&all)?)
    }

    /// A folder of this name, without what an earlier run left: it would be taken for this one's.
    fn anew(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.folder.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(isonorm_reports::Error::Write { path, source }.into())
            }
            _ => Ok(path),
        }
    }

    /// Measures the workloads that look slower again, longer and from the beginning, and puts what that gives in their place.
    pub(super) fn again(&self, gate: &Gate, snapshot: &mut Snapshot, slowdown: f64) -> Result<(), Error> {
        let suspects = gate.suspects();
        let names: BTreeSet<&str> = suspects.iter().map(|suspect| suspect.name.as_str()).collect();
        eprintln!("gate: {} workloads look slower and are measured again", names.len());
        let kernels = names.iter().filter_map(|name| name.split(' ').next()).collect();
        let speed = &self.policy.speed;
        let folder = self.folder.join("again");
        let (processes, milliseconds) = (AGAIN * speed.processes, u64::from(AGAIN) * speed.milliseconds);
        self.time(&folder, &kernels, processes, milliseconds, slowdown)?;
        let fresh = Snapshot::of(&[folder])?;
        for machine in &fresh.speed {
            let Some(old) = snapshot.speed.iter_mut().find(|old| old.machine == machine.machine) else { continue };
            let again = machine.cells.iter().filter(|(name, _)| names.contains(name.as_str()));
            old.cells.extend(again.map(|(name, cell)| (name.clone(), cell.clone())));
        }
        Ok(())
    }

    /// Times all workloads, with a planted slowdown if that is not 0.
    pub(super) fn all_times(&self, folder: &Path, slowdown: f64) -> Result<(), Error> {
        let speed = &self.policy.speed;
        let all = self.entries.iter().map(|entry| entry.name.as_str()).collect();
        self.time(folder, &all, speed.processes, speed.milliseconds, slowdown)
    }

    fn certify(&self) -> Result<(), Error> {
        let ask = &self.policy.ask;
        let (cases, seed) = (ask.cases.to_string(), ask.seed.to_string());
        let folder = self.folder.join("campaign");
        let mut certify = child("certify")?;
        certify.args(self.selection.words()).args(["--cases", &cases, "--seed", &seed, "--out"]).arg(folder);
        let status = certify.stdout(Stdio::null()).status().map_err(|error| not_started(&error))?;
        // Findings are what the gate is about.
        match status.code() {
            Some(0 | 1) => Ok(()),
            _ => Err(Error::Usage("the campaign was not finished: see above".to_owned())),
        }
    }

    /// Times all workloads of some kernels in so many processes, one after the other.
    fn time(
        &self,
        folder: &Path,
        kernels: &BTreeSet<&str>,
        processes: u32,
        milliseconds: u64,
        slowdown: f64,
    ) -> Result<(), Error> {
        let speed = &self.policy.speed;
        let time = format!("{milliseconds}ms");
        for process in 1..=processes {
            eprintln!("gate: timing, process {process} of {processes}");
            for rows in [true, false] {
                let fits = |shape: &&Shape| (shape.0.len() == 2) == rows;
                let shapes: Vec<String> =
                    self.shapes.iter().filter(fits).map(|shape| workload::text(&shape.0)).collect();
                let offers = |entry: &&Entry| entry.offer.dtypes.iter().any(|dtypes| self.dtypes.contains(dtypes));
                let chosen =
                    |entry: &&Entry| workload::on_rows(entry.operator) == rows && kernels.contains(entry.name.as_str());
                let timed = |entry: &&Entry| entry.contender.device() != Device::Ptx;
                let entries = self.entries.iter().filter(timed).filter(chosen).filter(offers);
                let names: Vec<String> = entries.map(|entry| entry.name.clone()).collect();
                if shapes.is_empty() || names.is_empty() {
                    continue;
                }
                let threads: Vec<String> = speed.threads.iter().map(u16::to_string).collect();
                let half = if rows { "rows" } else { "channels" };
                let mut bench = child("bench")?;
                bench.args(self.selection.only(names, self.dtypes.clone()).words());
                bench.args(["--no-ceilings", "--no-as-called", "--records-only", "--layout", "contiguous"]);
                bench.args(["--versus", &speed.versus, "--time", &time, "--seed", &process.to_string()]);
                bench.args(["--shape", &shapes.join(","), "--threads", &threads.join(",")]);
                bench.args(["--placements", &speed.placements.to_string(), "--slowed", &slowdown.to_string()]);
                bench.arg("--out").arg(folder.join(format!("{half}-{process}")));
                let output = bench.output().map_err(|error| not_started(&error))?;
                if !matches!(output.status.code(), Some(0 | 1)) {
                    let said = String::from_utf8_lossy(&output.stderr).into_owned();
                    return Err(Error::Usage(format!("the kernels could not be timed: {}", said.trim())));
                }
            }
        }
        Ok(())
    }

    /// What the gate is strict about.
    pub(super) fn policy(&self) -> &Policy {
        self.policy
    }

    /// Where the records go.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// This program with another verb.
fn child(verb: &str) -> Result<Command, Error> {
    let program = std::env::current_exe().map_err(|error| not_started(&error))?;
    let mut command = Command::new(program);
    command.arg(verb).stdin(Stdio::null());
    Ok(command)
}

fn not_started(error: &std::io::Error) -> Error {
    Error::Usage(format!("cannot start isonorm again: {error}; check that its file is still there"))
}
