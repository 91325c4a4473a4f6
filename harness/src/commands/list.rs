//! `list`: what there is.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use isonorm_oracles::claims::CLAIMS;
use isonorm_oracles::identities::IDENTITIES;
use isonorm_oracles::operators::{OPERATORS, Paper};
use serde::Serialize;

use super::kernels::builtin;
use super::{Answer, Error, Format, print_json, print_text};
use crate::generate::families::FAMILIES;
use crate::run::Device;

/// List operators, kernels, value families, identities, claims or papers.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to list.
    #[arg(value_enum, default_value = "operators")]
    what: What,
    /// The kernels for this device.
    #[arg(long, value_enum, default_value = "cpu")]
    device: Device,
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
    Claims,
    Papers,
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
            let kernels = builtin(Device::Cpu)?;
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
        What::Kernels => builtin(arguments.device)?
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
        What::Claims => CLAIMS
            .iter()
            .map(|claim| Item {
                name: claim.name.to_owned(),
                state: claim.untestable.map_or("measured", |_| "measured in part").to_owned(),
                summary: format!("{} ({})", claim.sentence, claim.paper.reference),
            })
            .collect(),
        What::Papers => papers(),
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

/// Every paper that something here comes from, by its reference, and what that is.
fn papers() -> Vec<Item> {
    let operators = OPERATORS.iter().flat_map(|operator| operator.papers.iter().map(|paper| (paper, operator.name)));
    let identities = IDENTITIES.iter().flat_map(|identity| identity.papers.iter().map(|paper| (paper, identity.name)));
    let claims = CLAIMS.iter().map(|claim| (&claim.paper, claim.name));
    let kinds: [(&str, Vec<(&Paper, &str)>); 3] =
        [("operator", operators.collect()), ("identity", identities.collect()), ("claim", claims.collect())];
    let mut papers: BTreeMap<&str, Item> = BTreeMap::new();
    for (kind, (paper, used)) in kinds.iter().flat_map(|(kind, all)| all.iter().map(move |one| (kind, one))) {
        // Behind the reference may be a section or an equation.
        let reference = paper.reference.split(',').next().unwrap_or(paper.reference);
        let new = || Item { name: reference.to_owned(), state: String::new(), summary: paper.title.to_owned() };
        let item = papers.entry(reference).or_insert_with(new);
        let used = format!("{kind} {used}");
        if !item.state.split(", ").any(|known| known == used) {
            item.state += if item.state.is_empty() { "" } else { ", " };
            item.state += &used;
        }
    }
    papers.into_values().collect()
}
