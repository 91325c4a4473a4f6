//! The part of the page about identities.

use serde::Serialize;

use super::Drawing;
use crate::Error;
use crate::identities::{headline, summary};
use crate::plot::{identity_figures, network_figures};
use crate::record::{Experiment, Identity, IdentityVerdict};
use crate::table::Table;

/// What the template `identities.html` is filled with.
#[derive(Serialize)]
pub(super) struct Identities {
    pub(super) headline: String,
    pub(super) fails: bool,
    table: Table,
    /// Each with its figure.
    all: Vec<(Identity, Drawing)>,
    /// Properties of networks.
    networks: Vec<Drawing>,
}

impl Identities {
    /// Of all that were checked; none if there are none.
    pub(super) fn of(identities: &[Identity], experiments: &[Experiment]) -> Result<Option<Identities>, Error> {
        if identities.is_empty() {
            return Ok(None);
        }
        let drawings = identity_figures(identities)?.into_iter().map(Drawing::from);
        Ok(Some(Identities {
            headline: headline(identities),
            fails: identities.iter().any(|identity| identity.verdict == IdentityVerdict::Fails),
            table: summary(identities).without_empty_columns(),
            networks: network_figures(experiments)?.into_iter().map(Drawing::from).collect(),
            all: identities.iter().cloned().zip(drawings).collect(),
        }))
    }
}
