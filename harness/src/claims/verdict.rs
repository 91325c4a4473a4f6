//! The verdict on a claim, from what was measured.

use isonorm_oracles::claims::{Metric, Stated};
use isonorm_reports::record::{ClaimVerdict, Interval, Number};

/// What was measured of a pair.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// The figure, with its 95 % interval.
    pub measured: Interval,
    /// The figure of the program without what is made better: the most that can be had. For [`Metric::NoCost`], the cost
    /// that is said to go away.
    pub limit: Option<Interval>,
    /// How large a figure came out, at most, between the baseline and itself.
    pub resolution: f64,
}

/// The answer, and why.
///
/// A saving is there if all of its interval is above 0 and it is above what the baseline saves beside itself. If it is there, it
/// is [`ClaimVerdict::Reproduced`] where its interval meets the paper's range, and [`ClaimVerdict::DirectionOnly`] elsewhere. If
/// it is not, the claim is [`ClaimVerdict::NotTestable`] where the limit lies below the paper's range (Amdahl) or the paper's
/// figure cannot be told from none, and else [`ClaimVerdict::NotReproduced`].
pub fn verdict(stated: &Stated, metric: Metric, evidence: &Evidence) -> (ClaimVerdict, String) {
    let Interval { value, low, high } = evidence.measured;
    if ![value, low, high].iter().all(|number| number.0.is_finite()) {
        return (ClaimVerdict::NotTestable, "what was measured is not a number".to_owned());
    }
    match metric {
        Metric::NoCost(margin) => no_cost(margin, evidence),
        _ => saving(stated, evidence),
    }
}

fn saving(stated: &Stated, Evidence { measured, limit, resolution }: &Evidence) -> (ClaimVerdict, String) {
    let (value, low, high) = (measured.value.0, measured.low.0, measured.high.0);
    let out_of_reach = limit.filter(|limit| limit.high.0 < stated.low).map(|limit| {
        format!(
            "even without what is made better no more than {} is gained here, and at least {} is stated",
            percent(limit.high.0),
            percent(stated.low)
        )
    });
    if low > 0.0 && value > *resolution {
        return if low > stated.high {
            (ClaimVerdict::DirectionOnly, "more than stated".to_owned())
        } else if high < stated.low {
            (ClaimVerdict::DirectionOnly, out_of_reach.unwrap_or_else(|| "less than stated".to_owned()))
        } else {
            (ClaimVerdict::Reproduced, "within what is stated".to_owned())
        };
    }
    if let Some(why) = out_of_reach {
        return (ClaimVerdict::NotTestable, why);
    }
    let open = high.max(if value.abs() <= *resolution { *resolution } else { f64::NEG_INFINITY });
    if open >= stated.low {
        let why = format!("what is stated cannot be told from nothing here: up to {} is noise", percent(open));
        return (ClaimVerdict::NotTestable, why);
    }
    (ClaimVerdict::NotReproduced, if high < 0.0 { "it is worse" } else { "nothing is gained" }.to_owned())
}

fn no_cost(margin: f64, Evidence { measured, limit, resolution }: &Evidence) -> (ClaimVerdict, String) {
    let (value, low, high) = (measured.value.0, measured.low.0, measured.high.0);
    let cost = limit.map(|limit| limit.low.0.min(limit.value.0 - resolution));
    if let Some(cost) = cost.filter(|cost| *cost <= margin) {
        let why = format!("what is said to go away costs {} at least: too little to see it go", percent(cost));
        return (ClaimVerdict::NotTestable, why);
    }
    if high <= margin {
        return (ClaimVerdict::Reproduced, format!("costs no more than {}", percent(margin)));
    }
    if low <= margin || value <= margin + resolution {
        return (ClaimVerdict::NotTestable, format!("{} cannot be told from nothing here", percent(high)));
    }
    match limit.filter(|limit| high < limit.low.0) {
        Some(_) => (ClaimVerdict::DirectionOnly, "less is left of the cost, but some".to_owned()),
        None => (ClaimVerdict::NotReproduced, "the cost is still there".to_owned()),
    }
}

fn percent(share: f64) -> String {
    format!("{} %", Number(100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ClaimVerdict::{DirectionOnly, NotReproduced, NotTestable, Reproduced};

    const STATED: Stated = Stated { text: "", low: 0.07, high: 0.40 };

    fn interval(low: f64, high: f64) -> Interval {
        Interval { value: Number((low + high) / 2.0), low: Number(low), high: Number(high) }
    }

    #[test]
    fn savings_by_truth_table() {
        for (what, (low, high), limit, resolution, expected) in [
            ("inside", (0.20, 0.25), None, 0.01, Reproduced),
            ("meets the range from below", (0.05, 0.08), None, 0.01, Reproduced),
            ("meets the range from above", (0.38, 0.45), None, 0.01, Reproduced),
            ("less", (0.02, 0.04), None, 0.01, DirectionOnly),
            ("more", (0.50, 0.60), None, 0.01, DirectionOnly),
            ("none", (-0.01, 0.01), None, 0.01, NotReproduced),
            ("worse", (-0.30, -0.20), None, 0.01, NotReproduced),
            ("open", (-0.10, 0.20), None, 0.01, NotTestable),
            ("inside, but the baseline beside itself too", (0.08, 0.10), None, 0.12, NotTestable),
            ("none, and a limit far above", (-0.01, 0.01), Some((0.3, 0.4)), 0.01, NotReproduced),
            ("none, and a limit below the range", (-0.01, 0.01), Some((0.01, 0.02)), 0.01, NotTestable),
            ("less, and a limit below the range", (0.01, 0.02), Some((0.02, 0.03)), 0.001, DirectionOnly),
            ("not a number", (f64::NAN, f64::NAN), None, 0.01, NotTestable),
        ] {
            let limit = limit.map(|(low, high)| interval(low, high));
            let evidence = Evidence { measured: interval(low, high), limit, resolution };
            let (found, why) = verdict(&STATED, Metric::TimeSaved, &evidence);
            assert_eq!(found, expected, "{what}: {why}");
        }
    }

    #[test]
    fn costs_by_truth_table() {
        for (what, (low, high), (from, to), expected) in [
            ("nothing", (-0.01, 0.01), (0.2, 0.3), Reproduced),
            ("faster", (-0.05, -0.02), (0.2, 0.3), Reproduced),
            ("nothing, and nothing to see", (-0.01, 0.01), (0.0, 0.01), NotTestable),
            ("open", (-0.01, 0.2), (0.3, 0.4), NotTestable),
            ("some", (0.08, 0.1), (0.3, 0.4), DirectionOnly),
            ("all", (0.3, 0.4), (0.3, 0.4), NotReproduced),
        ] {
            let evidence =
                Evidence { measured: interval(low, high), limit: Some(interval(from, to)), resolution: 0.005 };
            let (found, why) = verdict(&STATED, Metric::NoCost(0.02), &evidence);
            assert_eq!(found, expected, "{what}: {why}");
        }
    }
}
