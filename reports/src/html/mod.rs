//! The report for people: one page that needs nothing else.

mod bench;
mod claims;
mod gate;
mod identities;

use std::collections::BTreeSet;

use serde::Serialize;

pub use self::gate::page as gate_page;

use self::bench::Speed;
use self::claims::Claims;
use self::identities::Identities;
use crate::certificate::{Asked, Certificate};
use crate::plot::{self, Figure, figures};
use crate::record::{Number, Property, Range};
use crate::summary::{Summary, Verdict, counted};
use crate::{Error, render};

/// What the template `report.html` is filled with.
#[derive(Serialize)]
struct Page {
    /// Whether it is about correctness, which it is not if kernels were only timed.
    certifies: bool,
    /// What the headline means: a verdict, or a class of its own.
    mood: String,
    headline: String,
    speed: Option<Speed>,
    identities: Option<Identities>,
    claims: Option<Claims>,
    certified: usize,
    failed: usize,
    incomplete: usize,
    cases: u64,
    cases_per_second: Option<Number>,
    seconds: Number,
    elements: u64,
    findings: usize,
    declined: u64,
    kernels: Vec<Certificate>,
    /// Whether some of them ran on the PTX executor.
    executed: bool,
    /// Names of all properties, and for each kernel what was counted for each.
    properties: Vec<String>,
    property_rows: Vec<(String, Vec<Option<Property>>)>,
    /// All dtypes, and for each kernel its range in each.
    dtypes: Vec<String>,
    range_rows: Vec<(String, Vec<Option<Range>>)>,
    figures: Vec<Drawing>,
    problems: Vec<String>,
    runs: Vec<Asked>,
    light: String,
    dark: String,
    figure_css: String,
}

#[derive(Serialize)]
struct Drawing {
    title: String,
    caption: String,
    svg: String,
    wide: bool,
}

impl From<Figure> for Drawing {
    fn from(figure: Figure) -> Drawing {
        let Figure { name, title, caption, svg, .. } = figure;
        Drawing { wide: name == "families", title, caption, svg }
    }
}

/// The page.
///
/// # Errors
/// [`Error::Plot`] if a figure cannot be drawn, [`Error::Template`] if the page cannot be written.
pub fn page(summary: &Summary) -> Result<String, Error> {
    let kernels = &summary.kernels;
    let properties: BTreeSet<_> = kernels.iter().flat_map(|k| &k.properties).map(|p| p.property.clone()).collect();
    let dtypes: BTreeSet<_> = kernels.iter().flat_map(|k| &k.ranges).map(|r| r.dtype.clone()).collect();
    let property_rows = kernels.iter().map(|k| {
        let of = |name: &String| k.properties.iter().find(|p| p.property == *name).cloned();
        (k.kernel.name.clone(), properties.iter().map(of).collect())
    });
    let range_rows = kernels.iter().map(|k| {
        let of = |dtype: &String| k.ranges.iter().find(|r| r.dtype == *dtype).cloned();
        (k.kernel.name.clone(), dtypes.iter().map(of).collect())
    });
    let (verdict, headline) = headline(summary);
    let speed = Speed::of(&summary.benches)?;
    let identities = Identities::of(&summary.identities, &summary.experiments)?;
    let claims = Claims::of(&summary.claims)?;
    let certifies = !kernels.is_empty() || (speed.is_none() && identities.is_none() && claims.is_none());
    let (mood, headline) = match (certifies, &identities) {
        (true, _) => (verdict.to_string(), headline),
        (false, Some(identities)) if speed.is_none() || identities.fails => {
            let mood = if identities.fails { Verdict::Failed } else { Verdict::Certified };
            (mood.to_string(), identities.headline.clone())
        }
        (false, None) if let Some(claims) = claims.as_ref().filter(|claims| speed.is_none() || claims.wrong) => {
            let mood = if claims.wrong { Verdict::Failed.to_string() } else { "measured".to_owned() };
            (mood, claims.headline.clone())
        }
        _ if summary.benches.any_slower() => ("slower".to_owned(), summary.benches.headline()),
        _ => ("measured".to_owned(), summary.benches.headline()),
    };
    let page = Page {
        certifies,
        mood,
        headline,
        speed,
        identities,
        claims,
        certified: summary.verdicts(Verdict::Certified),
        failed: summary.verdicts(Verdict::Failed),
        incomplete: summary.verdicts(Verdict::Incomplete),
        cases: summary.cases(),
        cases_per_second: summary.cases_per_second(),
        seconds: summary.throughput.seconds,
        elements: kernels.iter().map(|k| k.total.elements.exact + k.total.elements.libtorch).sum(),
        findings: summary.findings(),
        declined: summary.declined(),
        kernels: kernels.iter().map(|kernel| Certificate::new(summary, kernel)).collect(),
        executed: kernels.iter().any(|kernel| kernel.kernel.device == "ptx"),
        property_rows: property_rows.collect(),
        properties: properties.iter().cloned().collect(),
        range_rows: range_rows.collect(),
        dtypes: dtypes.iter().cloned().collect(),
        figures: figures(summary)?.into_iter().map(Drawing::from).collect(),
        problems: summary.problems.iter().map(ToString::to_string).collect(),
        runs: summary.runs.iter().map(Asked::from).collect(),
        light: plot::css_variables(false),
        dark: plot::css_variables(true),
        figure_css: plot::css(),
    };
    render::render("report.html", page)
}

fn headline(summary: &Summary) -> (Verdict, String) {
    let all = counted(summary.kernels.len() as u64, "kernel");
    let (failed, incomplete) = (summary.verdicts(Verdict::Failed), summary.verdicts(Verdict::Incomplete));
    match (failed, incomplete) {
        _ if summary.kernels.is_empty() => (Verdict::Incomplete, "No kernel was asked about".to_owned()),
        (0, 0) if summary.kernels.len() == 1 => (Verdict::Certified, "The kernel is certified".to_owned()),
        (0, 0) => (Verdict::Certified, format!("All {all} are certified")),
        (0, n) => (Verdict::Incomplete, format!("{n} of {all} could not be judged completely")),
        (n, _) => (Verdict::Failed, format!("{n} of {all} failed")),
    }
}
