//! How often the gate is wrong on this machine, and which slowdowns it finds: measured.

use clap::Args;

use super::super::{Answer, Error, Format};
use super::measure::Measure;

/// How long and with what the gate is calibrated.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// Gates of unchanged kernels, and gates for each planted slowdown.
    #[arg(long, value_name = "N", default_value_t = 10, requires = "calibrate")]
    gates: u32,
    /// The slowdowns that are planted, as parts of the time.
    #[arg(long, value_name = "P,..", value_delimiter = ',', default_value = "0.05,0.1,0.3", requires = "calibrate")]
    slowdowns: Vec<f64>,
}

pub(super) fn run(_measure: &Measure<'_>, _options: &Options, _format: Format) -> Result<Answer, Error> {
    Err(Error::Usage("not yet".to_owned()))
}
