//! What a set of records says about each kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::bench::Benches;
use crate::record::{
    self, Campaign, Case, Claim, Counts, End, Experiment, Finding, Identity, Kernel, Number, Outcome, Property, Range,
    Record, Tallies, Tally, Throughput, TrafficCounts, files, read_lossy,
};

/// Everything that reports are made from.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The runs that were counted.
    pub runs: Vec<Run>,
    /// The kernels, by operator, direction and name.
    pub kernels: Vec<KernelSummary>,
    /// Speed of all runs together: cases and times added up.
    pub throughput: Throughput,
    /// What was measured about speed. Kernels that were only timed are not among the kernels.
    pub benches: Benches,
    /// What the checks of identities gave, the last for each name.
    pub identities: Vec<Identity>,
    /// Properties of networks, the last for each name.
    pub experiments: Vec<Experiment>,
    /// What was measured of papers' claims, the last for each name.
    pub claims: Vec<Claim>,
    /// What is wrong with the records themselves.
    pub problems: Vec<Problem>,
}

/// One run of a campaign, or of a part of it.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was asked.
    pub campaign: Campaign,
    /// How it ended; none if it was cut off.
    pub end: Option<End>,
}

/// What was found out about a kernel.
#[derive(Clone, Debug)]
pub struct KernelSummary {
    /// The kernel.
    pub kernel: Kernel,
    /// The answer.
    pub verdict: Verdict,
    /// Why it is not certified; empty if it is.
    pub reasons: Vec<String>,
    /// What was counted over all of its cases.
    pub total: Counts,
    /// The same by dtype, value family and size class.
    pub tallies: Vec<Tally>,
    /// What it got wrong.
    pub findings: Vec<Finding>,
    /// Cases that have a record of their own.
    pub cases: Vec<Case>,
    /// On which scale of inputs it works, by dtype.
    pub ranges: Vec<Range>,
    /// What was checked, by name.
    pub properties: Vec<Property>,
    /// What its launches did, by dtype; only of a kernel on the PTX executor.
    pub traffic: BTreeMap<String, TrafficCounts>,
    /// The runs it took part in, as indices into [`Summary::runs`].
    pub runs: Vec<usize>,
}

/// The answer about a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It got something wrong.
    Failed,
    /// Nothing wrong was found, but the campaign did not do all that was asked.
    Incomplete,
    /// All that was asked was done, and nothing wrong was found.
    Certified,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Failed => "failed",
            Verdict::Incomplete => "incomplete",
            Verdict::Certified => "certified",
        })
    }
}

/// Something that is wrong with the records themselves. Kernels it concerns are not certified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A line could not be read.
    #[error("{0}")]
    BadLine(String),
    /// A run has no end record.
    #[error("shard {index} of {of} with seed {seed} was cut off before its end: run it again")]
    CutOff {
        /// Its seed.
        seed: u64,
        /// Its number.
        index: u32,
        /// The number of shards.
        of: u32,
    },
    /// A run was stopped.
    #[error("shard {index} of {of} with seed {seed} was interrupted")]
    Interrupted {
        /// Its seed.
        seed: u64,
        /// Its number.
        index: u32,
        /// The number of shards.
        of: u32,
    },
    /// Some shards of a campaign are not there.
    #[error("of the {of} shards with seed {seed}, these are missing: {}", numbers(missing))]
    MissingShards {
        /// The seed.
        seed: u64,
        /// The number of shards.
        of: u32,
        /// Those that are missing.
        missing: Vec<u32>,
    },
    /// A shard is there more than once; it is counted once.
    #[error("shard {index} of {of} with seed {seed} is there more than once: the most complete one is counted")]
    DuplicateShard {
        /// Its seed.
        seed: u64,
        /// Its number.
        index: u32,
        /// The number of shards.
        of: u32,
    },
    /// Two different kernels have the same name.
    #[error("different kernels are called {kernel}: report them apart, or give them different names")]
    KernelConflict {
        /// The name.
        kernel: String,
    },
    /// A record is about a kernel that no record describes.
    #[error("there are records about {kernel}, but none that says what it is: give the whole file")]
    UnknownKernel {
        /// The name.
        kernel: String,
    },
}

fn numbers(list: &[u32]) -> String {
    list.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// A campaign record and what follows it.
struct Section {
    run: Run,
    records: Vec<Record>,
    /// Whether records of it may have been lost.
    damaged: bool,
    /// The lines of its file that are not records.
    bad: Vec<Problem>,
}

impl Section {
    fn complete(&self) -> bool {
        !self.damaged && self.run.end.as_ref().is_some_and(|end| end.outcome == Outcome::Complete)
    }

    /// Judged cases and measurements.
    fn weight(&self) -> u64 {
        let weight = |record: &Record| match record {
            Record::Tally(tally) => tally.counts.cases,
            Record::Bench(_) | Record::Identity(_) | Record::Experiment(_) | Record::Claim(_) => 1,
            _ => 0,
        };
        self.records.iter().map(weight).sum()
    }

    /// Whether only speed was asked about.
    fn only_measures(&self) -> bool {
        let (mut measures, mut judges) = (false, false);
        for record in &self.records {
            match record {
                Record::Bench(_) | Record::Ceiling(_) => measures = true,
                Record::Campaign(_)
                | Record::Kernel(_)
                | Record::Identity(_)
                | Record::Experiment(_)
                | Record::Claim(_)
                | Record::End(_) => {}
                _ => judges = true,
            }
        }
        measures && !judges
    }

    /// What the shards of one campaign agree in.
    fn identity(&self) -> String {
        let c = &self.run.campaign;
        format!("{:?}", (&c.isonorm, &c.revision, c.seed, c.shard.of, c.budget, &c.selection))
    }
}

impl Summary {
    /// Summarises files of records and folders with such files. Lines that are not records are [`Problem`]s.
    ///
    /// # Errors
    /// As [`files`] and [`read_lossy`].
    pub fn read(paths: &[PathBuf]) -> Result<Summary, Error> {
        let (mut sections, mut problems) = (Vec::new(), Vec::new());
        for path in paths {
            for file in files(path)? {
                let (records, bad) = read_lossy(&file)?;
                let mut bad = bad.iter().map(|line| Problem::BadLine(line.to_string())).collect();
                let mut own = cut_into_sections(records, !Vec::is_empty(&bad));
                match own.last_mut() {
                    Some(section) => section.bad = bad,
                    None => problems.append(&mut bad),
                }
                sections.append(&mut own);
            }
        }
        Ok(summarise(sections, problems))
    }

    /// Summarises records in memory. Records before the first campaign record belong to no run and are left out.
    pub fn of(records: impl IntoIterator<Item = Record>) -> Summary {
        summarise(cut_into_sections(records, false), Vec::new())
    }

    /// Judged cases.
    pub fn cases(&self) -> u64 {
        self.kernels.iter().map(|k| k.total.cases).sum()
    }

    /// Declined cases.
    pub fn declined(&self) -> u64 {
        self.kernels.iter().map(|k| k.total.declined_cases()).sum()
    }

    /// Findings.
    pub fn findings(&self) -> usize {
        self.kernels.iter().map(|k| k.findings.len()).sum()
    }

    /// How many kernels have the given verdict.
    pub fn verdicts(&self, verdict: Verdict) -> usize {
        self.kernels.iter().filter(|k| k.verdict == verdict).count()
    }

    /// Cases judged per second of wall-clock time of one run; none if the time is not known.
    pub fn cases_per_second(&self) -> Option<Number> {
        let Throughput { cases, seconds, .. } = &self.throughput;
        (seconds.0 > 0.0).then(|| Number(*cases as f64 / seconds.0))
    }
}

impl KernelSummary {
    /// What was counted, grouped by any function of a tally.
    pub fn by<K: Ord>(&self, key: impl Fn(&Tally) -> K) -> BTreeMap<K, Counts> {
        let mut groups = BTreeMap::<K, Counts>::new();
        for tally in &self.tallies {
            groups.entry(key(tally)).or_default().merge(&tally.counts);
        }
        groups
    }
}

fn cut_into_sections(records: impl IntoIterator<Item = Record>, damaged: bool) -> Vec<Section> {
    let mut sections = Vec::<Section>::new();
    for record in records {
        match (record, sections.last_mut()) {
            (Record::Campaign(campaign), _) => {
                sections.push(Section {
                    run: Run { campaign, end: None },
                    records: Vec::new(),
                    damaged,
                    bad: Vec::new(),
                });
            }
            (Record::End(end), Some(section)) => section.run.end = Some(end),
            (record, Some(section)) => section.records.push(record),
            (_, None) => {}
        }
    }
    sections
}

fn summarise(sections: Vec<Section>, mut problems: Vec<Problem>) -> Summary {
    let conflicts = conflicts(&sections);
    let mut kernels = BTreeMap::<String, KernelSummary>::new();
    let mut throughput = Throughput { cases: 0, seconds: Number(0.0), stages: BTreeMap::new() };
    let mut tallies = Tallies::default();
    let (mut runs, mut rest, mut measured) = (Vec::new(), Vec::new(), Vec::new());
    let (mut timed, mut identities, mut experiments, mut claims) =
        (BTreeSet::new(), Vec::new(), Vec::new(), Vec::new());
    for (section, incomplete) in choose(sections, &mut problems) {
        let only_measures = section.only_measures();
        for record in section.records {
            match record {
                Record::Bench(_) | Record::Ceiling(_) => {
                    measured.push((section.run.campaign.machine.clone(), record));
                }
                Record::Identity(identity) => {
                    identities.retain(|known: &Identity| known.name != identity.name);
                    identities.push(identity);
                }
                Record::Experiment(experiment) => {
                    experiments.retain(|known: &Experiment| known.name != experiment.name);
                    experiments.push(experiment);
                }
                Record::Claim(claim) => {
                    claims.retain(|known: &Claim| known.name != claim.name);
                    claims.push(claim);
                }
                Record::Kernel(kernel) if only_measures => drop(timed.insert(kernel.name)),
                Record::Kernel(kernel) => describe(&mut kernels, kernel, runs.len(), &incomplete),
                Record::Throughput(more) => add_throughput(&mut throughput, &more),
                Record::Tally(tally) => tallies.add(&tally),
                other => rest.push(other),
            }
        }
        runs.push(section.run);
    }
    // Kernels come first, because all other records refer to them.
    let names = measured.iter().filter_map(|(_, record)| record.kernel());
    let mut unknown: BTreeSet<_> =
        names.filter(|name| !timed.contains(*name) && !kernels.contains_key(*name)).map(str::to_owned).collect();
    for record in tallies.into_iter().map(Record::from).chain(rest) {
        let Some(name) = record.kernel() else { continue };
        match kernels.get_mut(name) {
            Some(kernel) => kernel.take(record),
            None => drop(unknown.insert(name.to_owned())),
        }
    }
    problems.extend(unknown.into_iter().map(|kernel| Problem::UnknownKernel { kernel }));
    for kernel in conflicts {
        if let Some(summary) = kernels.get_mut(&kernel) {
            summary.reasons.push("different kernels have this name".to_owned());
        }
        problems.push(Problem::KernelConflict { kernel });
    }
    let mut kernels: Vec<_> = kernels.into_values().collect();
    kernels.iter_mut().for_each(KernelSummary::decide);
    kernels.sort_by_cached_key(|k| (k.kernel.operator.clone(), k.kernel.direction != "forward", k.kernel.name.clone()));
    Summary { runs, kernels, throughput, benches: Benches::new(measured), identities, experiments, claims, problems }
}

/// The names that different kernels share.
fn conflicts(sections: &[Section]) -> BTreeSet<String> {
    let mut first = BTreeMap::<&str, Kernel>::new();
    let mut conflicts = BTreeSet::new();
    for record in sections.iter().flat_map(|section| &section.records) {
        if let Record::Kernel(kernel) = record {
            // Campaigns may ask about different dtypes of the same kernel.
            let without_dtypes = Kernel { dtypes: Vec::new(), ..kernel.clone() };
            if *first.entry(&kernel.name).or_insert_with(|| without_dtypes.clone()) != without_dtypes {
                conflicts.insert(kernel.name.clone());
            }
        }
    }
    conflicts
}

/// Leaves out what is there twice, and says for each section why its kernels are incomplete, if they are.
fn choose(sections: Vec<Section>, problems: &mut Vec<Problem>) -> Vec<(Section, Vec<String>)> {
    let mut campaigns = BTreeMap::<String, Vec<Section>>::new();
    for section in sections {
        campaigns.entry(section.identity()).or_default().push(section);
    }
    let mut chosen = Vec::<(Section, Vec<String>)>::new();
    for (_, shards) in campaigns {
        let first = chosen.len();
        let there: BTreeSet<_> = shards.iter().map(|section| section.run.campaign.shard.index).collect();
        let Campaign { seed, shard, .. } = shards[0].run.campaign;
        let of = shard.of;
        let missing: Vec<_> = (1..=of).filter(|index| !there.contains(index)).collect();
        let lacking = (!missing.is_empty()).then(|| format!("shards {} of {of} are missing", numbers(&missing)));
        if !missing.is_empty() {
            problems.push(Problem::MissingShards { seed, of, missing });
        }

        // What was cut off and then done again is no problem, wherever it was done again.
        let done: BTreeSet<_> = shards
            .iter()
            .filter(|section| section.complete())
            .map(|section| section.run.campaign.shard.index)
            .collect();
        let counts =
            |section: &Section| section.complete() || !done.contains(&section.run.campaign.shard.index) || of == 1;
        let mut shards: Vec<_> = shards.into_iter().filter(counts).collect();
        problems.extend(shards.iter_mut().flat_map(|section| std::mem::take(&mut section.bad)));

        // The same cases on another machine are not the same evidence; a shard is one part of the evidence.
        let mut places = BTreeMap::<String, Section>::new();
        for section in shards {
            let Campaign { shard, machine, started, .. } = &section.run.campaign;
            // Measured again is new evidence; judged again is not.
            let time = if section.only_measures() { started } else { "" };
            let machine = if of == 1 { format!("{machine:?}") } else { String::new() };
            let (place, index) = (format!("{shard:?} {machine} {time}"), shard.index);
            if let Some(other) = places.get(&place) {
                problems.push(Problem::DuplicateShard { seed, index, of });
                if (other.complete(), other.weight()) >= (section.complete(), section.weight()) {
                    continue;
                }
            }
            places.insert(place, section);
        }
        for (_, section) in places {
            let mut reasons: Vec<_> = lacking.iter().cloned().collect();
            let index = section.run.campaign.shard.index;
            match &section.run.end {
                None => {
                    reasons.push("a run was cut off".to_owned());
                    problems.push(Problem::CutOff { seed, index, of });
                }
                Some(End { outcome: Outcome::Interrupted, .. }) => {
                    reasons.push("a run was interrupted".to_owned());
                    problems.push(Problem::Interrupted { seed, index, of });
                }
                Some(_) if section.damaged => reasons.push("some records could not be read".to_owned()),
                Some(_) => {}
            }
            chosen.push((section, reasons));
        }
        if of > 1 {
            one_finding_each(&mut chosen[first..]);
        }
    }
    chosen
}

/// Of the findings that several shards made of the same property, leaves the one that the whole campaign would have made.
fn one_finding_each(shards: &mut [(Section, Vec<String>)]) {
    let mut found = BTreeMap::<(String, String), Finding>::new();
    for (section, _) in &mut *shards {
        section.records.retain(|record| {
            let Record::Finding(finding) = record else { return true };
            let key = (finding.kernel.clone(), finding.property.clone());
            match found.get_mut(&key) {
                Some(known) => {
                    let further = known.further.saturating_add(finding.further).saturating_add(1);
                    if record::plainer(&finding.original, &known.original) {
                        *known = finding.clone();
                    }
                    known.further = further;
                }
                None => drop(found.insert(key, finding.clone())),
            }
            false
        });
    }
    if let Some((section, _)) = shards.first_mut() {
        section.records.extend(found.into_values().map(Record::from));
    }
}

fn describe(kernels: &mut BTreeMap<String, KernelSummary>, kernel: Kernel, run: usize, incomplete: &[String]) {
    let known = kernels.entry(kernel.name.clone()).or_insert_with(|| KernelSummary {
        kernel: Kernel { dtypes: Vec::new(), ..kernel.clone() },
        verdict: Verdict::Incomplete,
        reasons: Vec::new(),
        total: Counts::default(),
        tallies: Vec::new(),
        findings: Vec::new(),
        cases: Vec::new(),
        ranges: Vec::new(),
        properties: Vec::new(),
        traffic: BTreeMap::new(),
        runs: Vec::new(),
    });
    known.runs.push(run);
    for dtype in kernel.dtypes {
        if !known.kernel.dtypes.contains(&dtype) {
            known.kernel.dtypes.push(dtype);
        }
    }
    for reason in incomplete {
        if !known.reasons.contains(reason) {
            known.reasons.push(reason.clone());
        }
    }
}

fn add_throughput(sum: &mut Throughput, more: &Throughput) {
    sum.cases = sum.cases.saturating_add(more.cases);
    sum.seconds.0 += more.seconds.0;
    for (stage, seconds) in &more.stages {
        sum.stages.entry(stage.clone()).or_default().0 += seconds.0;
    }
}

impl KernelSummary {
    /// Adds a record about this kernel.
    fn take(&mut self, record: Record) {
        match record {
            Record::Tally(tally) => {
                self.total.merge(&tally.counts);
                self.tallies.push(tally);
            }
            Record::Case(case) => self.cases.push(case),
            Record::Finding(finding) => {
                let same = |f: &&mut Finding| (&f.property, &f.case) == (&finding.property, &finding.case);
                match self.findings.iter_mut().find(same) {
                    Some(known) => known.further = known.further.saturating_add(finding.further).saturating_add(1),
                    None => self.findings.push(finding),
                }
            }
            Record::Range(range) => match self.ranges.iter_mut().find(|r| r.dtype == range.dtype) {
                // Of two answers, what both allow.
                Some(known) => {
                    known.smallest = known.smallest.zip(range.smallest).map(|(a, b)| a.max(b));
                    known.largest = known.largest.zip(range.largest).map(|(a, b)| a.min(b));
                }
                None => self.ranges.push(range),
            },
            Record::Property(property) => match self.properties.iter_mut().find(|p| p.property == property.property) {
                Some(known) => {
                    known.checked = known.checked.saturating_add(property.checked);
                    known.failed = known.failed.saturating_add(property.failed);
                }
                None => self.properties.push(property),
            },
            Record::Traffic(traffic) => self.traffic.entry(traffic.dtype).or_default().merge(&traffic.counts),
            Record::Campaign(_)
            | Record::Kernel(_)
            | Record::Throughput(_)
            | Record::Bench(_)
            | Record::Ceiling(_)
            | Record::Identity(_)
            | Record::Experiment(_)
            | Record::Claim(_)
            | Record::End(_) => {}
        }
    }

    /// Comes to a verdict, once everything about the kernel is known.
    fn decide(&mut self) {
        // Shards come in any order.
        self.findings.sort_by(|one, other| (&one.property, &one.case).cmp(&(&other.property, &other.case)));
        self.properties.sort_by(|one, other| one.property.cmp(&other.property));
        let mut wrong = Vec::new();
        if !self.findings.is_empty() {
            wrong.push(counted(self.findings.len() as u64, "finding"));
        }
        if self.total.failed > 0 {
            wrong.push(counted(self.total.failed, "failed case"));
        }
        for Property { property, checked, failed, .. } in self.properties.iter().filter(|p| p.required && p.failed > 0)
        {
            wrong.push(format!("{property} does not hold in {failed} of {checked} checks"));
        }
        // Nothing is certified on a contradiction.
        if let Some(worst) = self.total.errors.worst_ratio_to_bound.as_ref().filter(|w| w.value > Number(1.0)) {
            wrong.push(format!("the worst error is {} times the bound", worst.value));
        }
        for case in
            self.cases.iter().filter(|c| !matches!(c.verdict, record::Verdict::Pass | record::Verdict::Declined(_)))
        {
            if wrong.is_empty() {
                wrong.push(format!("the case {} failed", case.case));
            }
        }

        for (reason, cases) in &self.total.not_run {
            // What a compiler says has many lines; the records keep them.
            let first = reason.lines().next().unwrap_or_default();
            self.reasons.push(format!("{} could not be run: {first}", counted(*cases, "case")));
        }
        let judged = self.by(|tally| tally.dtype.clone());
        let unjudged = |dtype: &&String| judged.get(*dtype).is_none_or(|counts| counts.cases == 0);
        if self.total.cases == 0 {
            self.reasons.push("no case was judged".to_owned());
        } else {
            let unjudged = self.kernel.dtypes.iter().filter(unjudged);
            self.reasons.extend(unjudged.map(|dtype| format!("no case was judged in {dtype}")));
        }
        self.verdict = match (wrong.is_empty(), self.reasons.is_empty()) {
            (true, true) => Verdict::Certified,
            (true, false) => Verdict::Incomplete,
            (false, _) => Verdict::Failed,
        };
        self.reasons.splice(0..0, wrong);
    }
}

/// `1 finding`, `2 findings`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
