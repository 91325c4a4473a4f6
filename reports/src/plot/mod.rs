//! Figures: each file makes one kind from a summary. To add one, copy a neighbour and name it in [`figures`].

mod bench;
mod claims;
mod error;
mod families;
mod gate;
mod identities;
mod theme;
mod throughput;
mod ulps;

use std::collections::BTreeSet;

use crate::Error;
use crate::summary::Summary;

/// A figure of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name, from which its file's name is made.
    pub name: String,
    /// What it shows, in a few words.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The operator that it is about, if it shows details of one.
    pub operator: Option<String>,
    /// The figure for a page that has [`css`] and [`css_variables`].
    pub svg: String,
}

/// All figures about correctness that the summary has data for.
///
/// # Errors
/// [`Error::Plot`] if one cannot be drawn.
pub fn figures(summary: &Summary) -> Result<Vec<Figure>, Error> {
    let dtypes: BTreeSet<_> = summary.kernels.iter().flat_map(|k| &k.tallies).map(|t| t.dtype.as_str()).collect();
    let mut figures = Vec::new();
    figures.extend(families::figure(summary)?);
    for dtype in &dtypes {
        figures.extend(error::figure(summary, dtype)?);
    }
    for dtype in &dtypes {
        figures.extend(ulps::figure(summary, dtype)?);
    }
    figures.extend(throughput::figure(summary)?);
    Ok(figures)
}

pub use bench::figures as bench_figures;
pub use claims::{MOST_PAIRS as MOST_CLAIM_PAIRS, figures as claim_figures};
pub use gate::figures as gate_figures;
pub use identities::{figures as identity_figures, network_figures};
pub use theme::{css, css_variables};

impl Figure {
    /// The figure as a file of its own, which follows the light or dark scheme of whoever shows it.
    pub fn file(&self) -> String {
        let style = format!(
            "<style>\nsvg {{ {} }}\n@media (prefers-color-scheme: dark) {{ svg {{ {} }} }}\n{}</style>\n",
            css_variables(false),
            css_variables(true),
            css()
        );
        match self.svg.find(">\n") {
            Some(end) => format!("{}{style}{}", &self.svg[..end + 2], &self.svg[end + 2..]),
            None => self.svg.clone(),
        }
    }
}
