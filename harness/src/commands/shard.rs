//! Which part of a campaign this is: said outright, or read from what schedulers and CI systems tell their jobs.

/// A part of a campaign, as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shard {
    /// Part I of N, counted from 1.
    Part(u32, u32),
    /// What the environment says; of so many parts, if that was said.
    Auto(Option<u32>),
}

/// Where the environment says which part this is.
struct Source {
    /// The variable with the number of the part.
    index: &'static str,
    /// The number of the first part.
    first: u32,
    /// The variable with the number of parts; none where the environment has none.
    of: Option<&'static str>,
}

const fn source(index: &'static str, first: u32, of: Option<&'static str>) -> Source {
    Source { index, first, of }
}

/// Schedulers before CI systems: a job of a cluster may have been sent by one.
const SOURCES: [Source; 9] = [
    source("SLURM_ARRAY_TASK_ID", 1, Some("SLURM_ARRAY_TASK_COUNT")),
    source("JOB_COMPLETION_INDEX", 0, None),
    source("AWS_BATCH_JOB_ARRAY_INDEX", 0, Some("AWS_BATCH_JOB_ARRAY_SIZE")),
    source("PBS_ARRAY_INDEX", 1, None),
    source("CIRCLE_NODE_INDEX", 0, Some("CIRCLE_NODE_TOTAL")),
    source("BUILDKITE_PARALLEL_JOB", 0, Some("BUILDKITE_PARALLEL_JOB_COUNT")),
    source("SYSTEM_JOBPOSITIONINPHASE", 1, Some("SYSTEM_TOTALJOBSINPHASE")),
    source("SEMAPHORE_JOB_INDEX", 1, Some("SEMAPHORE_JOB_COUNT")),
    // GitLab.
    source("CI_NODE_INDEX", 1, Some("CI_NODE_TOTAL")),
];

/// Reads `I/N`, `auto` or `auto/N`.
pub(super) fn parse(text: &str) -> Result<Shard, String> {
    let shard = match text.split_once('/') {
        None => (text == "auto").then_some(Shard::Auto(None)),
        Some(("auto", of)) => of.parse().ok().filter(|of| *of > 0).map(|of| Shard::Auto(Some(of))),
        Some((index, of)) => index.parse().ok().zip(of.parse().ok()).map(|(index, of)| Shard::Part(index, of)),
    };
    let valid = |shard: &Shard| !matches!(shard, Shard::Part(index, of) if *index == 0 || index > of);
    shard.filter(valid).ok_or_else(|| {
        "a shard is I/N with I from 1 to N, such as 2/8, or auto or auto/N where the environment says which".to_owned()
    })
}

/// The part and the number of parts, and the variable that said so. `variable` looks up the environment.
///
/// # Errors
/// What the environment does not say, and what to do about it.
pub(super) fn resolve(
    shard: Shard,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(u32, u32, Option<&'static str>), String> {
    let given = match shard {
        Shard::Part(index, of) => return Ok((index, of, None)),
        Shard::Auto(given) => given,
    };
    let Some((source, text)) = SOURCES.iter().find_map(|source| Some((source, variable(source.index)?))) else {
        let known: Vec<&str> = SOURCES.iter().map(|source| source.index).collect();
        return Err(format!("nothing says which shard this is (none of {}): give --shard I/N", known.join(", ")));
    };
    let number = |name: &str, text: String| {
        text.parse::<u32>().map_err(|_| format!("{name} is `{text}`, which is no number: give --shard I/N"))
    };
    let index = number(source.index, text)?;
    // Arrays of Slurm begin where their job says; one that is sent again alone begins at itself.
    let first = match variable("SLURM_ARRAY_TASK_MIN") {
        Some(lowest) if source.index.starts_with("SLURM") && lowest == "0" => 0,
        _ => source.first,
    };
    let of = match (given, source.of.and_then(|name| Some((name, variable(name)?)))) {
        (Some(given), _) => given,
        (None, Some((name, text))) => number(name, text)?,
        (None, None) => {
            return Err(format!(
                "{} says which shard this is, and nothing of how many: give --shard auto/N",
                source.index
            ));
        }
    };
    match (index + 1).checked_sub(first) {
        Some(index) if 1 <= index && index <= of => Ok((index, of, Some(source.index))),
        _ => Err(format!(
            "{} is {index}, and there are {of} shards, counted from {first}: number the array {first}-{}, or give --shard \
             auto/N with the number of all shards",
            source.index,
            of + first - 1
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(shard: &str, variables: &[(&str, &str)]) -> Result<(u32, u32, Option<&'static str>), String> {
        let lookup = |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
        resolve(parse(shard)?, lookup)
    }

    #[test]
    fn what_says_which_shard_this_is() {
        for (shard, variables, expected) in [
            ("2/8", &[][..], (2, 8)),
            ("auto", &[("SLURM_ARRAY_TASK_ID", "8"), ("SLURM_ARRAY_TASK_COUNT", "8")], (8, 8)),
            (
                "auto",
                &[("SLURM_ARRAY_TASK_ID", "0"), ("SLURM_ARRAY_TASK_COUNT", "8"), ("SLURM_ARRAY_TASK_MIN", "0")],
                (1, 8),
            ),
            // One task sent again alone: the array has one task, and its number is still that of the shard.
            (
                "auto/8",
                &[("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "1"), ("SLURM_ARRAY_TASK_MIN", "3")],
                (3, 8),
            ),
            ("auto/4", &[("JOB_COMPLETION_INDEX", "3")], (4, 4)),
            ("auto", &[("CI_NODE_INDEX", "1"), ("CI_NODE_TOTAL", "5")], (1, 5)),
            ("auto", &[("CIRCLE_NODE_INDEX", "0"), ("CIRCLE_NODE_TOTAL", "2")], (1, 2)),
            ("auto", &[("BUILDKITE_PARALLEL_JOB", "1"), ("BUILDKITE_PARALLEL_JOB_COUNT", "2")], (2, 2)),
        ] {
            let found = with(shard, variables).unwrap_or_else(|error| panic!("{shard} {variables:?}: {error}"));
            assert_eq!((found.0, found.1), expected, "{shard} {variables:?}");
        }
    }

    #[test]
    fn what_the_environment_does_not_say_is_not_guessed() {
        for (shard, variables, mention) in [
            ("3/2", &[][..], "I/N"),
            ("0/2", &[], "I/N"),
            ("auto/0", &[], "auto/N"),
            ("auto", &[], "none of SLURM_ARRAY_TASK_ID"),
            ("auto", &[("JOB_COMPLETION_INDEX", "3")], "auto/N"),
            ("auto", &[("CI_NODE_INDEX", "one"), ("CI_NODE_TOTAL", "2")], "no number"),
            ("auto", &[("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "1")], "auto/N"),
            ("auto/2", &[("JOB_COMPLETION_INDEX", "2")], "0-1"),
            ("auto/2", &[("PBS_ARRAY_INDEX", "0")], "1-2"),
        ] {
            let error = with(shard, variables).expect_err(shard);
            assert!(error.contains(mention), "{shard} {variables:?}: {error}");
        }
    }
}
