//! `list`: what there is.

use clap::{Args, ValueEnum};
use isonorm_oracles::identities::IDENTITIES;
use isonorm_oracles::operators::OPERATORS;
use serde::Serialize;

use super::kernels::builtin;
use super::{Answer, Error, Format, print_json, print_text};
use crate::generate::families::FAMILIES;

/// List operators, kernels, value families or identities.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to list.
    #[arg(value_enum, default_value = "operators")]
    what: What,
    /// How the answer is printed.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Operators,
    Kernels,
    Families,
    Identities,
}

#[derive(Debug, Serialize)]
struct Item {
    name: String,
    state: String,
    summary: String,
}

pub(super) fn run(arguments: Arguments) -> Result<Answer, Error> {
    let items: Vec<Item> = match arguments.what {
        What::Operators => {
            let kernels = builtin();
            let offered = |name: &str| kernels.iter().filter(|kernel| kernel.info().operator == name).count();
            OPERATORS
                .iter()
                .map(|operator| Item {
                    name: operator.name.to_owned(),
                    state: format!("defined, {} built-in kernels", offered(operator.name)),
                    summary: operator.summary.to_owned(),
                })
                .collect()
        }
        What::Kernels => builtin()
            .iter()
            .map(|kernel| {
                let info = kernel.info();
                let dtypes: Vec<String> = info.dtypes.iter().map(|dtypes| dtypes.to_string()).collect();
                Item {
                    name: info.name.clone(),
                    state: kernel.origin().to_string(),
                    summary: format!("{} {}: {}; {}", info.operator, info.direction, dtypes.join(", "), info.layouts),
                }
            })
            .collect(),
        What::Families => FAMILIES
            .iter()
            .map(|family| Item {
                name: family.name.to_owned(),
                state: "generated".to_owned(),
                summary: format!("{}; catches {}", family.summary, family.catches),
            })
            .collect(),
        What::Identities => IDENTITIES
            .iter()
            .map(|identity| Item {
                name: identity.name.to_owned(),
                state: format!("defined, {} deviations", identity.deviations.len()),
                summary: identity.summary.to_owned(),
            })
            .collect(),
    };
    match arguments.format {
        Format::Json => print_json(&items)?,
        Format::Text => {
            let width = items.iter().map(|item| item.name.len()).max().unwrap_or(0);
            let line = |Item { name, state, summary }: &Item| format!("{name:width$}  {summary} ({state})\n");
            print_text(&items.iter().map(line).collect::<String>())?;
        }
    }
    Ok(Answer::Well)
}
