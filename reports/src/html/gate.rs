//! The page about a gate.

use serde::Serialize;

use super::Drawing;
use crate::gate::{Consequence, Document, Gate, Kind, Snapshot, Verdict, compared, document};
use crate::{Error, plot, render};

#[derive(Serialize)]
struct Page {
    headline: String,
    mood: &'static str,
    gate: Document,
    /// Each kind, and how much of it was compared.
    compared: Vec<(Kind, String)>,
    figures: Vec<Drawing>,
    before: Head,
    after: Head,
    light: String,
    dark: String,
    figure_css: String,
}

/// Of a snapshot, what the foot of the page says.
#[derive(Serialize)]
struct Head {
    taken: String,
    isonorm: String,
    machines: Vec<String>,
}

impl From<&Snapshot> for Head {
    fn from(snapshot: &Snapshot) -> Head {
        let machines = snapshot.speed.iter().map(|speed| speed.machine.text());
        Head { taken: snapshot.taken.clone(), isonorm: snapshot.isonorm.clone(), machines: machines.collect() }
    }
}

/// The page: what has got worse, before and after, and the history over older baselines, the oldest first.
///
/// # Errors
/// [`Error::Plot`] if a figure cannot be drawn, [`Error::Template`] if the page cannot be written.
pub fn page(gate: &Gate, history: &[Snapshot]) -> Result<String, Error> {
    let fails = gate.regressions.iter().filter(|regression| regression.consequence == Consequence::Fails).count();
    let (headline, mood) = match gate.verdict {
        Verdict::Pass => ("Nothing has got worse".to_owned(), "certified"),
        Verdict::Fail => (format!("{} worse", crate::summary::counted(fails as u64, "thing")), "failed"),
        Verdict::Undecided => ("Nothing is known to have got worse".to_owned(), "incomplete"),
    };
    let page = Page {
        headline,
        mood,
        gate: document(gate),
        compared: gate.kinds().into_iter().map(|kind| (kind, compared(gate, kind))).collect(),
        figures: plot::gate_figures(gate, history)?.into_iter().map(Drawing::from).collect(),
        before: Head::from(&gate.before),
        after: Head::from(&gate.after),
        light: plot::css_variables(false),
        dark: plot::css_variables(true),
        figure_css: plot::css(),
    };
    render::render("gate.html", page)
}
