//! The part of the page about claims.

use serde::Serialize;

use super::Drawing;
use crate::Error;
use crate::claims::{headline, pairs, programs, summary};
use crate::plot::claim_figures;
use crate::record::Claim;
use crate::table::Table;

/// What the template `claims.html` is filled with.
#[derive(Serialize)]
pub(super) struct Claims {
    pub(super) headline: String,
    pub(super) wrong: bool,
    table: Table,
    all: Vec<Told>,
}

/// A claim with its tables and its figure.
#[derive(Serialize)]
struct Told {
    claim: Claim,
    verdict: String,
    pairs: Table,
    programs: Table,
    figure: Drawing,
}

impl Claims {
    /// Of all that were measured; none if there are none.
    pub(super) fn of(claims: &[Claim]) -> Result<Option<Claims>, Error> {
        if claims.is_empty() {
            return Ok(None);
        }
        let told = |(claim, figure): (&Claim, crate::plot::Figure)| Told {
            claim: claim.clone(),
            verdict: claim.verdict.to_string(),
            pairs: pairs(claim),
            programs: programs(claim).without_empty_columns(),
            figure: Drawing::from(figure),
        };
        Ok(Some(Claims {
            headline: headline(claims),
            wrong: claims.iter().any(|claim| !claim.wrong.is_empty()),
            table: summary(claims).without_empty_columns(),
            all: claims.iter().zip(claim_figures(claims)?).map(told).collect(),
        }))
    }
}
