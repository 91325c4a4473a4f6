//! Claims: what papers say that a normalization saves, as data.
//!
//! Each is a file: the sentence, the figure, the programs that are compared, and what was scaled down. To add one, copy a
//! neighbour and name it in [`CLAIMS`]. Programs are lists of [`Part`]s, which say what is computed and in which way; whoever
//! measures interprets them.

use crate::operators::Paper;

mod blocks;
mod flash_norm;
mod integer_layer_norm;
mod membrane_potential;
mod part;
mod pre_rms_norm;
mod redundant_layer_norm;
mod rep_batch_norm;
mod rms_norm;
mod selective_differentiation;
mod simplified_block;
mod unified_norm;
mod weight_standardization;

pub use part::{Act, By, Fire, Fold, LEVEL, Mix, Norm, Part, UNIT};

/// Every claim. The command, tests and reports all start from this list.
pub static CLAIMS: [&Claim; 17] = [
    &rms_norm::FULL,
    &rms_norm::PARTIAL,
    &rms_norm::ITSELF,
    &pre_rms_norm::INFERENCE,
    &pre_rms_norm::COMPRESSED,
    &pre_rms_norm::TRAINING,
    &flash_norm::CLAIM,
    &unified_norm::THROUGHPUT,
    &unified_norm::MEMORY,
    &rep_batch_norm::THROUGHPUT,
    &rep_batch_norm::MERGED,
    &membrane_potential::CLAIM,
    &selective_differentiation::CLAIM,
    &redundant_layer_norm::CLAIM,
    &simplified_block::CLAIM,
    &weight_standardization::CLAIM,
    &integer_layer_norm::CLAIM,
];

/// The claim of this name.
pub fn find(name: &str) -> Option<&'static Claim> {
    CLAIMS.into_iter().find(|claim| claim.name == name)
}

/// Something that a paper says, and how it is measured here.
#[derive(Debug)]
pub struct Claim {
    /// Its name, everywhere.
    pub name: &'static str,
    /// What is said, in our own words.
    pub sentence: &'static str,
    /// By whom.
    pub paper: Paper,
    /// On what the paper measured.
    pub hardware: &'static str,
    /// The figure.
    pub stated: Stated,
    /// What the figure is.
    pub metric: Metric,
    /// How the workloads here differ from the paper's.
    pub scaling: &'static str,
    /// Why the figure itself cannot be measured here, if so. What is measured is shown beside.
    pub untestable: Option<&'static str>,
    /// What is compared.
    pub comparisons: &'static [Comparison],
}

/// A figure or a range of a paper, as a fraction: 0.07 for 7 %.
#[derive(Clone, Copy, Debug)]
pub struct Stated {
    /// As the paper has it.
    pub text: &'static str,
    /// The least.
    pub low: f64,
    /// The most.
    pub high: f64,
}

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Metric {
    /// The share of the baseline's time that the contender does not need.
    TimeSaved,
    /// How much more the contender does in the same time, as a share of what the baseline does.
    Throughput,
    /// The share of the baseline's bytes that the contender does not need.
    BytesSaved,
    /// What the contender takes on top, as a share of the baseline, where nothing is said to be added: up to this share counts as nothing.
    NoCost(f64),
}

impl Metric {
    /// As records name it.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::TimeSaved => "time saved",
            Metric::Throughput => "throughput gained",
            Metric::BytesSaved => "bytes saved",
            Metric::NoCost(_) => "time added",
        }
    }

    /// The figure, if the contender takes `ratio` times what the baseline takes.
    pub fn of(self, ratio: f64) -> f64 {
        match self {
            Metric::TimeSaved | Metric::BytesSaved => 1.0 - ratio,
            Metric::Throughput => 1.0 / ratio - 1.0,
            Metric::NoCost(_) => ratio - 1.0,
        }
    }
}

/// Programs that are measured beside each other, in turns.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Of what.
    pub level: Level,
    /// What runs.
    pub pass: Pass,
    /// What is counted.
    pub quantity: Quantity,
    /// The sizes.
    pub shapes: &'static [Shape],
    /// All of them.
    pub programs: &'static [Program],
    /// Who is compared with whom.
    pub pairs: &'static [Pair],
}

/// A program, and the one that it is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// What is compared, in a few words.
    pub title: &'static str,
    /// Whether the verdict on the claim is about it. Others are shown beside.
    pub decides: bool,
    /// The program that is said to be better.
    pub contender: &'static str,
    /// The program that it is compared with.
    pub baseline: &'static str,
    /// The program without what is made better: no contender can be better than that. For [`Metric::NoCost`], the program
    /// that pays the cost.
    pub limit: Option<&'static str>,
}

/// Of what something is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One operator.
    Kernel,
    /// Layers of a network.
    Block,
}

/// What runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Forward, without gradients. What can be folded into parameters was folded before.
    Inference,
    /// Forward, with all kept that the backward half needs.
    Kept,
    /// Forward and backward, with respect to all original parameters: folding is part of it.
    Training,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Seconds.
    Time,
    /// The most bytes of memory that a process has at once, less those before there was any data.
    PeakMemory,
}

/// Sizes of the data: `batch` times `tokens` rows of `width` entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sequences, images.
    pub batch: usize,
    /// Rows of each: tokens, positions, steps in time.
    pub tokens: usize,
    /// Entries of a row: the hidden size, channels.
    pub width: usize,
}

/// Short for a [`Shape`].
const fn shape(batch: usize, tokens: usize, width: usize) -> Shape {
    Shape { batch, tokens, width }
}

/// What is run, and what it must give.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name within the comparison.
    pub name: &'static str,
    /// What it does to data of this shape.
    pub parts: fn(Shape) -> Vec<Part>,
    /// The program, named before, that it must agree with, if it is another way of the same function.
    pub same_as: Option<&'static str>,
}

/// Short for a [`Program`] that is a function of its own.
const fn program(name: &'static str, parts: fn(Shape) -> Vec<Part>) -> Program {
    Program { name, parts, same_as: None }
}

/// Short for a [`Program`] that is another way of the same function.
const fn same(name: &'static str, same_as: &'static str, parts: fn(Shape) -> Vec<Part>) -> Program {
    Program { name, parts, same_as: Some(same_as) }
}

/// Short for a [`Pair`] that the verdict is about.
const fn decides(title: &'static str, contender: &'static str, baseline: &'static str) -> Pair {
    Pair { title, decides: true, contender, baseline, limit: None }
}

/// Short for a [`Pair`] that is shown beside.
const fn beside(title: &'static str, contender: &'static str, baseline: &'static str) -> Pair {
    Pair { title, decides: false, contender, baseline, limit: None }
}

impl Pair {
    /// The same with a limit.
    const fn limited_by(self, limit: &'static str) -> Pair {
        Pair { limit: Some(limit), ..self }
    }
}

impl Pass {
    /// As records name it.
    pub const fn name(self) -> &'static str {
        match self {
            Pass::Inference => "inference",
            Pass::Kept => "forward for training",
            Pass::Training => "training",
        }
    }
}

impl Level {
    /// As records name it.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Kernel => "kernel",
            Level::Block => "block",
        }
    }
}

impl Quantity {
    /// As records name it.
    pub const fn name(self) -> &'static str {
        match self {
            Quantity::Time => "seconds",
            Quantity::PeakMemory => "bytes of memory at the peak",
        }
    }
}

impl Comparison {
    /// The place of the program of this name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.programs.iter().position(|program| program.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn claims_name_what_they_have() {
        let mut names = BTreeSet::new();
        for claim in CLAIMS {
            assert!(names.insert(claim.name), "{} is there twice", claim.name);
            assert!(claim.stated.low <= claim.stated.high, "{}", claim.name);
            let pairs = || claim.comparisons.iter().flat_map(|comparison| comparison.pairs);
            let decided = pairs().any(|pair| pair.decides);
            assert_ne!(decided, claim.untestable.is_some(), "{}: either pairs decide, or nothing can", claim.name);
            let titles: BTreeSet<_> = pairs().map(|pair| pair.title).collect();
            assert_eq!(titles.len(), pairs().count(), "{}: a pair is there twice", claim.name);
            for comparison in claim.comparisons {
                assert!(!comparison.shapes.is_empty(), "{}: no shapes", claim.name);
                for (place, program) in comparison.programs.iter().enumerate() {
                    let root = program.same_as.map(|name| (name, comparison.place(name)));
                    if let Some((name, at)) = root {
                        let is_root = at.is_some_and(|at| at < place && comparison.programs[at].same_as.is_none());
                        assert!(is_root, "{}: `{name}` does not come before `{}`", claim.name, program.name);
                    }
                }
                let pairs = comparison
                    .pairs
                    .iter()
                    .flat_map(|pair| [pair.contender, pair.baseline].into_iter().chain(pair.limit));
                for name in pairs {
                    assert!(comparison.place(name).is_some(), "{}: no program `{name}`", claim.name);
                }
                let programs: BTreeSet<_> = comparison.programs.iter().map(|program| program.name).collect();
                assert_eq!(programs.len(), comparison.programs.len(), "{}: a program is there twice", claim.name);
            }
        }
    }

    #[test]
    fn figures_follow_from_ratios() {
        for (metric, figure) in [
            (Metric::TimeSaved, 0.2),
            (Metric::BytesSaved, 0.2),
            (Metric::Throughput, 0.25),
            (Metric::NoCost(0.02), -0.2),
        ] {
            assert!((metric.of(0.8) - figure).abs() < 1e-12, "{metric:?}");
        }
    }
}
